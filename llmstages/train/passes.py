"""Which rows each update trains on: one rule for all stages with a Trainer.

The rows of all passes stand in one line, each pass in an order of its own, and the line is cut into
full batches. So a batch never ends with its pass. Left to itself Trainer ends every pass with a
smaller batch: under DDP that is filled up with rows of the beginning, a mean over micro batches
weighs its rows too much, and a single row can cause a whole update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

ROUNDING = 1e-9  # updates; 0.1 * 30 rows are three, not a little more


def updates_of(rows: int, passes: float, batch_size: int, most_rows: int = 0) -> int:
    """Updates in which the rows are trained at least so often, at least one.

    Fewer than ``batch_size`` rows are trained once more to fill the last batch.

    Args:
        rows: number of rows.
        passes: such as 2.5.
        batch_size: rows in an update over all processes.
        most_rows: rows that are trained at most, however many passes that is; 0 = no limit.
    """
    wanted = rows * passes
    if most_rows:
        wanted = min(wanted, most_rows)
    return max(1, math.ceil(wanted / batch_size - ROUNDING))


def row_order(rows: int, updates: int, batch_size: int, seed: int) -> Any:
    """Numbers of the rows of all updates, in order: an int64 array of updates * batch_size."""
    import numpy as np

    rng = np.random.default_rng(seed)
    size = updates * batch_size
    passes = [rng.permutation(rows) for _ in range(math.ceil(size / rows))]
    return np.concatenate(passes)[:size]


class OrderedRows:
    """Rows in the order in which they are trained, as a map-style data set.

    A row is only read when it is asked for.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], order: Any) -> None:
        self.rows = rows
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> Mapping[str, Any]:
        return self.rows[int(self.order[place])]
