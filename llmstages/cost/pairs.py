"""What training on preference pairs takes: a reward model, or DPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmstages.cost.model import Training


def pair_training(
    config: Any,
    source: Mapping[str, Any],
    counted: tuple[float, int, str] | None,
    waits_for: str,
    has_reference: bool = False,
) -> Mapping[str, Any]:
    """What a stage's estimate() returns; both sides of a pair are rows.

    Args:
        config: of the stage.
        source: facts about the model that is trained.
        counted: (pairs that are trained on, tokens of a side, how this was counted), if known.
        waits_for: the step that makes the pairs.
        has_reference: a frozen model reads every row too.
    """
    model = source.get("model")
    if model is None:
        return {"no_estimate": f"the sizes of the model are known once {source['name']} is made"}
    rows, length, because = None, config.max_length, f"known once {waits_for} is made"
    if counted:
        pairs, length, because = counted
        rows = 2 * pairs * config.epochs
    training = Training(
        model,
        length,
        2 * config.batch_size,
        rows,
        2 * config.micro_batch_size,
        bf16=config.bf16,
        adapters=model.adapters(config.lora_r) if config.lora_r else 0,
        has_reference=has_reference,
        because=because,
    )
    return {"training": training}
