"""Scores of a reward model for rendered sequences, shared by reward training and RL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def scores(
    model: Any, tokenizer: Any, sequences: Sequence[Sequence[int]], batch: int = 64
) -> list[float]:
    """One score per sequence of token ids, padded on the right as in training.

    Args:
        model: a sequence classifier with one label.
        tokenizer: its tokenizer.
        sequences: token ids.
        batch: sequences that are scored at once.
    """
    import torch

    out: list[float] = []
    model.eval()
    for start in range(0, len(sequences), batch):
        rows = sequences[start : start + batch]
        width = max(map(len, rows))
        padded, real = [], []
        for row in rows:
            padding = width - len(row)
            padded.append([*row, *[tokenizer.pad_token_id] * padding])
            real.append([1] * len(row) + [0] * padding)
        ids = torch.tensor(padded, device=model.device)
        mask = torch.tensor(real, device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        out += logits[:, 0].float().tolist()
    return out
