"""How surprised a model is by the right answer, in bits for each byte of it.

Right and wrong say nothing about models that are right nowhere. This number falls from the first
thing that a model learns, and it compares models of different tokenizers.

Scores over the vocabulary are computed for the continuations alone, and for as many sequences at
once as memory holds: with 260,000 tokens, 64 texts of 512 would take 34 GB in float32.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from llmstages.text import batching, chat_format
from llmstages.text.render import Rendered

SCORE_COPIES = 3  # logits as computed, in float32, and their log-softmax
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
    model.eval()
    limit = getattr(model.config, "max_position_embeddings", NO_LIMIT)
    pad = chat_format.padding_id(tokenizer)
    sequences = _sequences(tokenizer, pairs, limit)
    bits = [0.0] * len(sequences)
    by_length = sorted(range(len(sequences)), key=lambda number: len(sequences[number][0]))
    for start in range(0, len(by_length), batch):
        chosen = by_length[start : start + batch]
        at_once = _rows_at_once(model, [sequences[number] for number in chosen])
        for part_start in range(0, len(chosen), at_once):
            part = chosen[part_start : part_start + at_once]
            totals = _nats(model, pad, [sequences[number] for number in part])
            for number, nats in zip(part, totals, strict=True):
                size = max(1, len(pairs[number][1].encode()))
                bits[number] = nats / math.log(2) / size
            advance(len(part))
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


def _rows_at_once(model: Any, sequences: Sequence[tuple[list[int], int]]) -> int:
    """How many of the sequences fit into memory together."""
    width = max(len(ids) for ids, _ in sequences)
    scored = width - min(first for _, first in sequences)
    config = model.config.get_text_config()
    size = batching.bytes_per_sequence(model, width, 0)
    size += SCORE_COPIES * batching.FLOAT * scored * config.vocab_size
    return batching.fitting(size, batching.available_memory(model.device), len(sequences))


def _nats(model: Any, pad: int, sequences: Sequence[tuple[list[int], int]]) -> list[float]:
    """The loss of each sequence, summed from the position where its continuation begins."""
    import torch

    width = max(len(ids) for ids, _ in sequences)
    padded = [[*ids, *[pad] * (width - len(ids))] for ids, _ in sequences]
    attended = [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in sequences]
    ids = torch.tensor(padded, device=model.device)
    mask = torch.tensor(attended, device=model.device)
    # A token is predicted at the position before it, so the last position predicts nothing.
    begin = min(first for _, first in sequences) - 1
    options = {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = width - begin
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    logits = logits[:, -(width - begin) : -1]
    totals = []
    # One sequence at a time, so that float32 copies never exist for all of them.
    for (tokens, first), target, scores in zip(sequences, ids[:, begin + 1 :], logits, strict=True):
        nats = torch.nn.functional.cross_entropy(scores.float(), target, reduction="none")
        totals.append(float(nats[first - 1 - begin : len(tokens) - 1 - begin].sum()))
    return totals


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
