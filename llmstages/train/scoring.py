"""Scores of a reward model for rendered sequences, shared by reward training and RL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def scores(
    model: Any, tokenizer: Any, sequences: Sequence[Sequence[int]], batch: int = 64
) -> list[float]:
    """One number a sequence of token ids, padded on the right as in training."""
    import torch

    out: list[float] = []
    model.eval()
    for start in range(0, len(sequences), batch):
        some = sequences[start : start + batch]
        width = max(map(len, some))
        ids = torch.tensor(
            [[*s, *[tokenizer.pad_token_id] * (width - len(s))] for s in some], device=model.device
        )
        mask = torch.tensor(
            [[1] * len(s) + [0] * (width - len(s)) for s in some], device=model.device
        )
        with torch.no_grad():
            out += (
                model(input_ids=ids, attention_mask=mask, use_cache=False)
                .logits[:, 0]
                .float()
                .tolist()
            )
    return out
