"""Batches of rows of token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmstages.train.evaluation import IGNORED_LABEL


def collate(
    rows: Sequence[Mapping[str, Any]], pad: int = 0, one_row: bool = False
) -> dict[str, Any]:
    """Stack rows of lists or arrays into a batch.

    Shorter rows are padded at their end, where the loss does not look. ``use_cache=False`` is part
    of the batch: it keeps packed documents apart, and this way it stays out of the model's config.

    Args:
        rows: input_ids, labels and position_ids of each row.
        pad: id of the padding token.
        one_row: put the rows one behind the other. In transformers, flash attention sees where a
            document begins only in a batch of one row; in others documents would see each other.

    Returns:
        Tensors of shape (rows, longest row), or (1, rows * longest row).
    """
    import numpy as np
    import torch

    width = max(len(row["input_ids"]) for row in rows)

    def stack(key: str, padding: Callable[[int], Any]) -> Any:
        padded = []
        for row in rows:
            values = np.asarray(row[key], np.int64)
            if len(values) < width:
                values = np.concatenate([values, padding(len(values))])
            padded.append(values)
        stacked = torch.from_numpy(np.stack(padded))
        return stacked.reshape(1, -1) if one_row else stacked

    return {
        "input_ids": stack("input_ids", lambda size: np.full(width - size, pad, np.int64)),
        "labels": stack("labels", lambda size: np.full(width - size, IGNORED_LABEL, np.int64)),
        "position_ids": stack("position_ids", lambda size: np.arange(size, width)),
        "use_cache": False,
    }
