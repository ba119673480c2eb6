"""How many updates some passes over rows are, as Trainer counts them.

Every pass ends with an update of its own, however few rows are left for it. So the updates of all
passes are not those of their rows in one line.
"""

from __future__ import annotations

import math


def updates_of(rows: int, passes: float, batch_size: int, most_rows: int = 0) -> int:
    """Updates of ``passes`` over the rows, at least one; a part of a pass is rounded up.

    Args:
        rows: number of rows.
        passes: such as 2.5.
        batch_size: rows in an update over all processes.
        most_rows: rows that are trained at most, however many passes that is; 0 = no limit.
    """
    whole = math.floor(passes)
    part = passes - whole
    updates = whole * _per_pass(rows, batch_size) + math.ceil(part * rows / batch_size)
    if most_rows:
        updates = min(updates, math.ceil(most_rows / batch_size))
    return max(1, updates)


def rows_of(updates: int, rows: int, batch_size: int) -> int:
    """Rows that so many updates train, each as often as it is trained."""
    passes, rest = divmod(updates, _per_pass(rows, batch_size))
    return passes * rows + min(rest * batch_size, rows)


def _per_pass(rows: int, batch_size: int) -> int:
    return max(1, math.ceil(rows / batch_size))
