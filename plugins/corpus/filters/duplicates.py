"""What the filters for duplicates share: groups of equal keys, and a compact answer.

Sorting numbers takes 8 bytes a document where a dictionary of keys takes two hundred, and no
answer is put into words before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmstages.data.filtering import Drop


class Duplicates(Mapping):
    """row -> Drop, made when asked for. rows: int64 array, ascending; drop(i): why rows[i] goes."""

    def __init__(self, rows: Any, drop: Callable[[int], Drop]) -> None:
        self._rows, self._drop = rows, drop

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return map(int, self._rows)

    def __getitem__(self, row: int) -> Drop:
        at = int(self._rows.searchsorted(row))
        if at == len(self._rows) or self._rows[at] != row:
            raise KeyError(row)
        return self._drop(at)


def equal(keys: Any) -> tuple[Any, Any]:
    """(firsts, others) of the keys (uint64) that an earlier position holds too.

    firsts: the first position that holds the key; others: the position itself.
    """
    import numpy as np

    order = np.argsort(keys)
    ordered = keys[order]
    same = np.zeros(len(keys) + 1, bool)
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    several = same[:-1] | same[1:]
    members, begins = order[several], np.flatnonzero(~same[:-1][several])
    if not len(members):
        return members, members
    firsts = np.repeat(np.minimum.reduceat(members, begins), np.diff(begins, append=len(members)))
    later = firsts != members
    return firsts[later], members[later]


def join(roots: Any, ones: Any, others: Any) -> None:
    """Make one cluster of the clusters of each pair, in place.

    roots: for each position the first one of its cluster.
    """
    import numpy as np

    while len(ones):
        a, b = roots[ones], roots[others]
        apart = a != b
        if not apart.any():
            return
        ones, others, a, b = ones[apart], others[apart], a[apart], b[apart]
        np.minimum.at(roots, np.maximum(a, b), np.minimum(a, b))
        # Let every position point at the first one itself, not at one on the way.
        while True:
            further = roots[roots]
            if np.array_equal(further, roots):
                break
            roots[:] = further
