"""Runs of tokens in a corpus of any size: how often each occurs, and the longest that a text shares with it.

Every run of n tokens gets a 64-bit hash, all of a chunk at once by doubling: hash(a + b) = hash(a) * BASE**len(b) + hash(b).
Nothing is indexed: the tokens are memory-mapped and read in chunks, so memory does not grow with the corpus. Two
different runs share a hash with a chance of about 2**-64 a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

CHUNK = 1 << 20  # tokens looked at in one go
BITS = 20  # of a hash that are looked at first
BASE = 0x9E3779B97F4A7C15  # odd, so that no power of it loses bits


def hashes(ids: Any, length: int) -> Any:
    """uint64 hash of each run of ``length`` ids, in order; empty where there are fewer ids."""
    import numpy as np

    if len(ids) < length:
        return np.zeros(0, np.uint64)
    block, width, out, covered = _mixed(np.asarray(ids)), 1, None, 0
    while True:
        if length & width:
            out = (
                block
                if out is None
                else out[: len(block) - covered] * np.uint64(pow(BASE, width, 1 << 64))
                + block[covered:]
            )
            covered += width
        if covered == length:
            return out
        block, width = (
            block[:-width] * np.uint64(pow(BASE, width, 1 << 64)) + block[width:],
            width * 2,
        )


def _mixed(ids: Any) -> Any:
    """A random-looking number for each id (the finaliser of splitmix64, Steele et al. 2014)."""
    import numpy as np

    x = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def scan(shard: Any, length: int, most: int) -> Iterator[tuple[Any, Any]]:
    """(places, hashes) of the runs that lie within one document, chunk by chunk over the first ``most`` tokens."""
    import numpy as np

    total = min(most, len(shard.ids))
    for at in range(0, total, CHUNK):
        found = hashes(shard.ids[at : min(at + CHUNK + length - 1, total)], length)
        places = np.arange(at, at + len(found))
        inside = places + length <= shard.starts[np.searchsorted(shard.starts, places, "right")]
        yield places[inside], found[inside]


def counted(shard: Any, length: int, most: int, keep: int) -> tuple[Any, Any]:
    """(first place, occurrences) of about ``keep`` different runs.

    Which ones is decided by their hash, so a run is counted at all its places or at none.
    """
    import numpy as np

    limit = np.uint64(min((1 << 64) - 1, int(keep / max(1, min(most, len(shard.ids))) * (1 << 64))))
    parts = []
    for places, found in scan(shard, length, most):
        mine = found <= limit
        values, first, often = np.unique(found[mine], return_index=True, return_counts=True)
        parts.append((values, places[mine][first], often))
    values, first, often = (
        (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if parts
        else (np.zeros(0, np.int64),) * 3
    )
    _, start, which = np.unique(values, return_index=True, return_inverse=True)
    return first[start], np.bincount(which, weights=often, minlength=len(start)).astype(np.int64)


def longest(shard: Any, texts: Sequence[Sequence[int]], most: int) -> list[int]:
    """For each text (ids) the length of the longest run of it that occurs within a document of the corpus.

    A run occurs only if its parts do, so the length is found by halving: the corpus is read once for each length tried.
    """
    import numpy as np

    low, high = [0] * len(texts), [len(text) for text in texts]
    while waiting := [i for i in range(len(texts)) if low[i] < high[i]]:
        tried = {i: (low[i] + high[i] + 1) // 2 for i in waiting}
        for length in sorted({*tried.values()}):
            mine = {i: hashes(np.asarray(texts[i]), length) for i in waiting if tried[i] == length}
            wanted = np.concatenate(list(mine.values()))
            likely = np.zeros(
                1 << BITS, bool
            )  # by the first bits of a hash, so that few runs of the corpus need a closer look
            likely[wanted >> np.uint64(64 - BITS)] = True
            seen = [
                np.unique(found[likely[found >> np.uint64(64 - BITS)]])
                for _, found in scan(shard, length, most)
            ]
            hit = np.intersect1d(wanted, np.concatenate(seen)) if seen else wanted[:0]
            for i, own in mine.items():
                if np.isin(own, hit).any():
                    low[i] = length
                else:
                    high[i] = length - 1
    return low
