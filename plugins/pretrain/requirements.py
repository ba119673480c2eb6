"""What must fit together before pretraining: rows and positions, tokenizer and model."""

from __future__ import annotations

from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context


def require_positions(config: Any, ctx: Context) -> None:
    """Raise StageError if a row has more tokens than the model has positions."""
    from llmstages.train.trainer import context_length

    positions = config.max_position_embeddings
    if ctx.maybe("model"):
        positions = context_length(ctx.one("model"))
    if positions and config.max_length > positions:
        raise StageError(f"{ctx.step}: {too_long(config, positions)}")


def too_long(config: Any, positions: int) -> str:
    """What is wrong with rows that are longer than the model, and what to do."""
    return (
        f"max_length={config.max_length} is more than the {positions} positions of the model; set "
        f"max_length to {positions} or lower, or, for a new model, max_position_embeddings higher"
    )


def require_same_tokens(tokenizer: Any, of_model: Any, ctx: Context) -> None:
    """Raise StageError if tokens that the model knows have other ids in the tokenizer.

    Tokens that are new to the model may be there.
    """
    known, wired = of_model.get_vocab(), tokenizer.get_vocab()
    other = sum(wired.get(token) != number for token, number in known.items())
    if other:
        raise StageError(
            f"{ctx.step}: the tokenizer that is wired in, {ctx.one('tokenizer').name}, is not that "
            f"of the model {ctx.one('model').name}: {other:,} of its {len(known):,} tokens have "
            "another id or none, so what the model learned would be lost. Take its own: "
            f"steps.{ctx.step}.tokenizer=null"
        )
