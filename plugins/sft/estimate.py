"""What fine-tuning will take, as far as it is known before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.cost.model import Training, text_tokens

Known = Mapping[str, Sequence[Mapping[str, Any]]]  # input name -> facts about each source


def estimate(config: Any, known: Known) -> Mapping[str, Any]:
    """Memory, time and cost of fine-tuning the model that is wired in.

    Rows are counted by the sizes of the dialogues' tables. Where these are not known yet, one
    row per dialogue is the upper limit, because longer dialogues are dropped.
    """
    source = known["model"][0]
    model = source.get("model")
    if model is None:
        return {"no_estimate": f"the sizes of the model are known once {source['name']} is made"}
    tokenizer = {**source, "vocab_size": model.vocab}
    tokens, because = text_tokens(known["dialogues"], config.mixture_weights, tokenizer)
    row_count = None
    if tokens is not None:
        row_count = tokens / config.max_length
    elif all("examples" in facts for facts in known["dialogues"]):
        row_count = sum(
            facts["examples"] * config.mixture_weights.get(facts["name"], 1.0)
            for facts in known["dialogues"]
        )
        because = f"at most one row for each of {row_count:,.0f} dialogues"
    if row_count is not None:
        row_count = (row_count + config.replay) * config.epochs
    length = config.max_length
    if not config.packing:
        length, row_count = _unpacked(known["dialogues"], tokens, config, row_count)
        because = because or f"rows of {length} tokens at most; most dialogues are shorter"
    training = Training(
        model,
        length,
        config.batch_size,
        row_count,
        config.micro_batch_size,
        bf16=config.bf16,
        adapters=model.adapters(config.lora_r) if config.lora_r else 0,
        because=because,
    )
    return {"training": training}


def _unpacked(
    sources: Sequence[Mapping[str, Any]],
    tokens: float | None,
    config: Any,
    row_count: float | None,
) -> tuple[int, float | None]:
    """(tokens in a row, rows) where each dialogue is a row: of average length, if that is known."""
    if tokens is None or not all("examples" in facts for facts in sources):
        return config.max_length, row_count
    examples = sum(
        facts["examples"] * config.mixture_weights.get(facts["name"], 1.0) for facts in sources
    )
    average = max(2, round(tokens / max(examples, 1)))
    return min(config.max_length, average), (examples + config.replay) * config.epochs
