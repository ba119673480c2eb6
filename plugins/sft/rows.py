"""Training rows without packing: one dialogue per row, and rows of similar length in one batch.

Batches of similar length need little padding. Packed rows are made by llmstages/data/packing.py.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.text.render import Rendered
from llmstages.train.passes import row_order

BATCHES_PER_BLOCK = 50  # batches that are drawn together and sorted by length


def unpacked_rows(
    rendered: Sequence[Rendered], max_length: int
) -> tuple[list[dict[str, list[int]]], int]:
    """Make one row from each dialogue or document.

    Returns:
        (rows of input_ids, labels and position_ids; tokens cut off beyond ``max_length``).
    """
    cut = 0
    rows = []
    for text in rendered:
        cut += max(0, len(text.ids) - max_length)
        ids = text.ids[:max_length]
        supervised = text.supervised[:max_length]
        labels = [token if on else -100 for token, on in zip(ids, supervised, strict=True)]
        if labels:
            labels[0] = -100  # nothing predicts the first token
        positions = list(range(len(ids)))
        rows.append({"input_ids": ids, "labels": labels, "position_ids": positions})
    return rows, cut


def length_grouped_order(
    rows: Sequence[Mapping[str, Any]], batch_size: int, batches: int, seed: int
) -> list[int]:
    """Indices of rows for ``batches`` batches, in random order.

    The rows of a batch have similar length. How often each row occurs is decided by passes.py.
    """
    rng = random.Random(seed)
    line = row_order(len(rows), batches, batch_size, seed).tolist()
    # A block is not larger than one pass, so a row occurs in it twice only where two passes meet.
    batches_per_block = min(BATCHES_PER_BLOCK, max(1, len(rows) // batch_size))
    block_size = batch_size * batches_per_block
    order: list[int] = []
    for begin in range(0, len(line), block_size):
        block = line[begin : begin + block_size]
        block.sort(key=lambda index: len(rows[index]["input_ids"]))
        starts = list(range(0, len(block), batch_size))
        rng.shuffle(starts)
        for start in starts:
            order += block[start : start + batch_size]
    return order
