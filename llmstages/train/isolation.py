"""Whether a model keeps documents apart that are packed into one row.

They are told apart by positions that begin again. Some architectures ignore positions (BLOOM, MPT),
some carry a state through the row (Mamba): there every document would be read as the continuation
of the one before, and nothing would show it but a worse model.
"""

from __future__ import annotations

from typing import Any

from llmstages.core.errors import StageError

TOKENS = 8  # of each of the two documents of the probe
TOLERANCE = 1e-3  # of the spread of the scores; rounding is far below it


def require_isolation(model: Any, step: str, advice: str) -> None:
    """Refuse a model whose scores in one document depend on the document before it in the row.

    Args:
        model: a causal language model, ready to train.
        step: its name, for the message.
        advice: what to do instead.

    Raises:
        StageError: it does not keep documents apart.
    """
    if not _keeps_apart(model):
        kind = model.config.get_text_config().model_type
        raise StageError(
            f"{step}: a model of the type {kind} does not keep the documents of a packed row apart "
            f"(it ignores their positions), so each would be learned as the continuation of "
            f"another. {advice}"
        )


def _keeps_apart(model: Any) -> bool:
    import torch

    weights = next(model.parameters())
    device = weights.device
    if device.type == "meta" or hasattr(weights, "ds_id"):
        return True  # the weights are spread over processes, so nothing can be computed yet
    vocabulary = model.config.get_text_config().vocab_size
    was_training = model.training
    model.eval()
    second = [token % vocabulary for token in range(TOKENS)]
    positions = torch.tensor([[*range(TOKENS), *range(TOKENS)]], device=device)
    scores = []
    try:
        for first in (1, 2):
            ids = torch.tensor([[first % vocabulary] * TOKENS + second], device=device)
            with torch.no_grad():
                output = model(input_ids=ids, position_ids=positions, use_cache=False)
            scores.append(output.logits[0, TOKENS:].float())
    except TypeError:  # it takes no positions at all
        return False
    finally:
        model.train(was_training)
    spread = float(scores[0].std()) or 1.0
    difference = float((scores[0] - scores[1]).abs().max())
    # A model that computes NaN is stopped by its first update, with a better reason.
    return not difference >= TOLERANCE * spread
