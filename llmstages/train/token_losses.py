"""The loss of each token of a continuation, for stages that compare how surprised a model is.

Scores over the vocabulary are computed for the continuations alone, and for as many sequences at
once as memory holds: with 260,000 tokens, 64 texts of 512 would take 34 GB in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llmstages.text import batching

SCORE_COPIES = 3  # logits as computed, in float32, and their log-softmax
Continuation = tuple[Sequence[int], int]  # token ids, and the position where it begins (1 or more)


def token_losses(
    model: Any,
    pad: int,
    sequences: Sequence[Continuation],
    batch: int,
    advance: Callable[[float], None],
) -> list[list[float]]:
    """The nats of each token of the continuations, from the first token of each on.

    Args:
        model: a causal language model of transformers.
        pad: the id that fills up shorter sequences.
        sequences: (ids, first): the tokens from position ``first`` on are scored.
        batch: sequences that are computed at once at most.
        advance: called with the number of sequences that are done.
    """
    model.eval()
    losses: list[list[float]] = [[] for _ in sequences]
    by_length = sorted(range(len(sequences)), key=lambda number: len(sequences[number][0]))
    for start in range(0, len(by_length), batch):
        chosen = by_length[start : start + batch]
        at_once = rows_at_once(model, [sequences[number] for number in chosen])
        for part_start in range(0, len(chosen), at_once):
            part = chosen[part_start : part_start + at_once]
            rows = batch_losses(model, pad, [sequences[number] for number in part])
            for number, nats in zip(part, rows, strict=True):
                losses[number] = nats
            advance(len(part))
    return losses


def rows_at_once(model: Any, sequences: Sequence[Continuation]) -> int:
    """How many of the sequences fit into memory together."""
    width = max(len(ids) for ids, _ in sequences)
    scored = width - min(first for _, first in sequences)
    config = model.config.get_text_config()
    size = batching.bytes_per_sequence(model, width, 0)
    size += SCORE_COPIES * batching.FLOAT * scored * config.vocab_size
    return batching.fitting(size, batching.available_memory(model.device), len(sequences))


def batch_losses(model: Any, pad: int, sequences: Sequence[Continuation]) -> list[list[float]]:
    """The losses of sequences in one forward pass, as ``token_losses`` gives them."""
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
    losses = []
    # One sequence at a time, so that float32 copies never exist for all of them.
    for (tokens, first), target, scores in zip(sequences, ids[:, begin + 1 :], logits, strict=True):
        nats = torch.nn.functional.cross_entropy(scores.float(), target, reduction="none")
        losses.append(nats[first - 1 - begin : len(tokens) - 1 - begin].tolist())
    return losses
