"""How surprised a model is by the right answer, in bits for each byte of it.

Right and wrong say nothing about models that are right nowhere. This number falls from the first
thing that a model learns, and it compares models of different tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llmstages.text import chat_format
from llmstages.text.render import Rendered
from llmstages.train.token_losses import token_losses

NO_LIMIT = 1 << 30  # tokens, for models that state no context length


def bits_per_byte(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch: int,
    advance: Callable[[float], None],
) -> list[float]:
    """Bits per byte of each continuation, given its text as the beginning of a document.

    Text and continuation are encoded as one, as the model would have read them; a token that begins
    in the text counts as part of the continuation. A text that is too long for the model's context
    loses its beginning, but not its BOS.

    Args:
        model, tokenizer: of transformers.
        pairs: (text, continuation).
        batch: sequences that are computed at once at most.
        advance: called with the number of pairs that are done.
    """
    limit = getattr(model.config, "max_position_embeddings", NO_LIMIT)
    sequences = _sequences(tokenizer, pairs, limit)
    losses = token_losses(model, chat_format.padding_id(tokenizer), sequences, batch, advance)
    bits = []
    for (_, continuation), nats in zip(pairs, losses, strict=True):
        size = max(1, len(continuation.encode()))
        bits.append(sum(nats) / math.log(2) / size)
    return bits


def _sequences(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], limit: int
) -> list[tuple[list[int], int]]:
    """For each pair its token ids, and the position at which the continuation begins."""
    whole_texts = chat_format.document_ids(tokenizer, [text + rest for text, rest in pairs])
    first_parts = chat_format.document_ids(tokenizer, [text for text, _ in pairs])
    sequences = []
    for ids, first_part in zip(whole_texts, first_parts, strict=True):
        shared = chat_format.common_length(ids, first_part)
        first = max(1, min(shared, len(ids) - 1))
        cut = max(0, len(ids) - limit)
        sequences.append(([ids[0], *ids[1 + cut :]], max(1, first - cut)))
    return sequences


def answer_losses(model: Any, rows: Sequence[Rendered]) -> tuple[float, int]:
    """(nats of all supervised tokens, number of these tokens) of rendered rows.

    Rows are computed one by one, and logits of supervised positions alone: with a vocabulary of
    100,000 entries those of whole batches would take gigabytes.
    """
    import torch

    model.eval()
    nats = 0.0
    tokens = 0
    for row in rows:
        # The state at one position predicts the token at the next.
        predicting = [place - 1 for place, on in enumerate(row.supervised) if on and place]
        if not predicting:
            continue
        ids = torch.tensor([row.ids], device=model.device)
        positions = torch.tensor(predicting, device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, logits_to_keep=positions, use_cache=False).logits[0]
        targets = ids[0, positions + 1]
        nats += float(torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))
        tokens += len(predicting)
    return nats, tokens
