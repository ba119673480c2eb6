"""Whether a model keeps documents apart that are packed into one row.

They are told apart by positions that begin again. Some architectures ignore positions (BLOOM, MPT),
some carry a state through the row (Mamba): there every document would be read as the continuation
of the one before, and nothing would show it but a worse model.
"""

from __future__ import annotations

from typing import Any

from llmstages.core.errors import StageError
from llmstages.train import distributed

TOKENS = 8  # of each of the two documents in a row of the probe
ROWS = 2  # of the probe; flash attention treats one row in another way than several
TOLERANCE = 1e-3  # of the spread of the scores; rounding is far below it


def require_isolation(model: Any, step: str, advice: str, one_row: bool = False) -> None:
    """Refuse a model whose scores in one document depend on the document before it in the row.

    Args:
        model: a causal language model, ready to train.
        step: its name, for the message.
        advice: what to do instead.
        one_row: whether batches are made so (batches.collate).

    Raises:
        StageError: it does not keep documents apart.
    """
    if not _keeps_apart(model, one_row):
        kind = model.config.get_text_config().model_type
        raise StageError(
            f"{step}: a model of the type {kind} does not keep the documents of a packed row apart "
            f"(it ignores their positions), so each would be learned as the continuation of "
            f"another. {advice}"
        )


def _keeps_apart(model: Any, one_row: bool) -> bool:
    weights = next(model.parameters())
    if weights.device.type == "meta" or hasattr(weights, "ds_id"):
        return True  # the weights are spread over processes, so nothing can be computed yet
    if _uses_flash(model) and distributed.requested_backend() == "fsdp":
        return True  # the whole model may not fit onto one GPU, and its kernels run there alone
    was_training = model.training
    model.eval()
    try:
        scores = [_second_documents(model, first, one_row) for first in (1, 2)]
    except TypeError:  # it takes no positions at all
        return False
    finally:
        model.train(was_training)
    spread = float(scores[0].std()) or 1.0
    difference = float((scores[0] - scores[1]).abs().max())
    # A model that computes NaN is stopped by its first update, with a better reason.
    return not difference >= TOLERANCE * spread


def _second_documents(model: Any, first: int, one_row: bool) -> Any:
    """The scores of the second documents of all rows, behind documents of one token's copies."""
    import torch

    from llmstages.train.batches import collate
    from llmstages.train.distributed import compute_device

    if _uses_flash(model):
        model.to(compute_device())
    device = next(model.parameters()).device
    vocabulary = model.config.get_text_config().vocab_size
    ids = [first % vocabulary] * TOKENS + [token % vocabulary for token in range(TOKENS)]
    row = {"input_ids": ids, "labels": ids, "position_ids": [*range(TOKENS), *range(TOKENS)]}
    batch = collate([row] * ROWS, one_row=one_row)
    inputs = {name: batch[name].to(device) for name in ("input_ids", "position_ids")}
    half = torch.autocast(device.type, torch.bfloat16, enabled=_uses_flash(model))
    with torch.no_grad(), half:
        logits = model(**inputs, use_cache=False).logits.float()
    return logits.reshape(ROWS, 2 * TOKENS, -1)[:, TOKENS:]


def _uses_flash(model: Any) -> bool:
    return "flash" in (model.config._attn_implementation or "")
