"""Packing: which documents share a row of training, and the data set that cuts out these rows.

Whole segments (segments.py) go to rows by best fit. Positions restart with each segment, which is
how transformers keeps packed documents from seeing each other. This module knows no tokenizer.

Best-fit packing of whole documents: Ding et al. 2024, "Fewer Truncations Improve Language
Modeling". Here only a window of rows is open instead of all of them, which keeps neighbors in the
order of training random.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.data.segments import Segments
from llmstages.text.render import Rendered

CHUNK = 1 << 22  # documents handled at once


def plan(sizes: Any, length: int, seed: int, window: int = 40) -> tuple[Any, Any]:
    """Assign segments to rows by best fit, in random order. Takes about a microsecond per segment.

    A segment goes to the fullest open row with room for it, to the oldest of equally full ones.
    When more than ``window`` rows are open, the fullest is closed.

    Args:
        sizes: tokens of each segment, at most ``length``.
        length: tokens of a row.
        seed: decides the order of segments and of rows.
        window: rows open at the same time.

    Returns:
        (order, bounds): row r holds the segments ``order[bounds[r] : bounds[r + 1]]``.
    """
    import numpy as np

    rng = random.Random(seed)
    count = len(sizes)
    shuffled = array("q", range(count))
    rng.shuffle(shuffled)
    order = np.frombuffer(shuffled, np.int64)
    sizes = np.asarray(sizes)

    row_of = np.empty(count, np.int64)
    closed = array("q")
    row_count = 0
    # An open row is one number, used * base - row, and these numbers are sorted. So the last one
    # that is small enough is the fullest row with room, and of equally full ones the oldest.
    base = count + 1
    open_rows: list[int] = []
    for at in range(0, count, CHUNK):
        rows = []
        for size in sizes[order[at : at + CHUNK]].tolist():
            fitting = bisect_right(open_rows, (length - size) * base)
            if fitting:
                number = open_rows.pop(fitting - 1)
                rows.append(-number % base)
                insort(open_rows, number + size * base)
                continue
            rows.append(row_count)
            insort(open_rows, size * base - row_count)
            row_count += 1
            if len(open_rows) > window:
                closed.append(-open_rows.pop() % base)
        row_of[at : at + len(rows)] = rows
    closed.extend(sorted(-number % base for number in open_rows))

    rng.shuffle(closed)
    place = np.empty(row_count, np.int64)
    if row_count:
        place[np.frombuffer(closed, np.int64)] = np.arange(row_count)
    row_of = place[row_of]
    segments_per_row = np.bincount(row_of, minlength=row_count)
    bounds = np.concatenate([[0], np.cumsum(segments_per_row)])
    return order[np.argsort(row_of, kind="stable")], bounds


class Packed:
    """Rows of ``length`` tokens as a map-style data set.

    Each row has ``input_ids``, ``labels`` and ``position_ids`` as int64 arrays, and its number as
    ``row``. A segment longer than a row is cut; ``cut`` is the number of tokens lost by this.
    """

    def __init__(self, segments: Segments, length: int, pad: int, seed: int) -> None:
        import numpy as np

        sizes = segments.sizes()
        self.segments = segments
        self.length = length
        self.pad = pad
        self.cut = int(np.maximum(sizes - length, 0, dtype=np.int64).sum())
        self.order, self.bounds = plan(np.minimum(sizes, length), length, seed)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def documents(self) -> int:
        """How many documents end in these rows."""
        return int(self.segments.last[self.order[: self.bounds[-1]]].sum())

    def first(self, count: int) -> Packed:
        """The first rows of the same plan."""
        # Not through __init__, which would plan again.
        few = object.__new__(Packed)
        few.__dict__.update(self.__dict__, bounds=self.bounds[: count + 1])
        return few

    def __getitem__(self, row: int) -> Mapping[str, Any]:
        import numpy as np

        if not 0 <= row < len(self):
            raise IndexError(row)
        input_ids = np.full(self.length, self.pad, np.int64)
        labels = np.full(self.length, -100, np.int64)
        positions = np.empty(self.length, np.int64)
        at = 0
        for segment in self.order[self.bounds[row] : self.bounds[row + 1]]:
            ids, supervised = self.segments.read(segment)
            ids = ids[: self.length]
            supervised = supervised[: self.length]
            end = at + len(ids)
            input_ids[at:end] = ids
            positions[at:end] = np.arange(len(ids))
            # Nothing predicts the first token of a document, so its label is free for the target
            # behind the last token of the document before it. Where a row is full there is none.
            labels[at + 1 : end] = np.where(supervised, ids, -100)[1:]
            target = self.segments.end(segment)
            if target is not None and end < self.length:
                labels[end] = target
            at = end
        positions[at:] = np.arange(self.length - at)
        return {"row": row, "input_ids": input_ids, "labels": labels, "position_ids": positions}


def pack(
    rows: Sequence[Rendered], length: int, pad: int, seed: int
) -> tuple[list[dict[str, list[int]]], int]:
    """Rendered rows packed into rows of ``length`` tokens, as lists.

    Returns:
        (rows of input_ids, labels and position_ids; tokens cut from documents longer than a row).
    """
    packed = Packed(Segments.of(rows), length, pad, seed)
    names = ("input_ids", "labels", "position_ids")
    return [{name: row[name].tolist() for name in names} for row in packed], packed.cut
