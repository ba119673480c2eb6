"""Runs of tokens in a corpus: how often each occurs, and the longest that a text shares with it.

Every run of n tokens gets a 64-bit hash, all of a chunk at once by doubling: hash(a + b) = hash(a)
* BASE**len(b) + hash(b). No index is built: the tokens are memory-mapped and read in chunks, so
that memory does not grow with the corpus. Two different runs share a hash with a chance of about
2**-64 per pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

CHUNK = 1 << 20  # tokens that are hashed at once
BITS = 20  # of a hash that are compared first
BASE = 0x9E3779B97F4A7C15  # odd, so that no power of it loses bits


def hashes(ids: Any, length: int) -> Any:
    """The uint64 hash of each run of ``length`` ids, in order; empty if there are fewer ids."""
    import numpy as np

    if len(ids) < length:
        return np.zeros(0, np.uint64)
    # Runs of 1, 2, 4, ... ids; those whose width is a bit of ``length`` make up the result.
    block = _mixed(np.asarray(ids))
    width = 1
    result: Any = None
    covered = 0
    while True:
        power = np.uint64(pow(BASE, width, 1 << 64))
        if length & width:
            if result is None:
                result = block
            else:
                result = result[: len(block) - covered] * power + block[covered:]
            covered += width
        if covered == length:
            return result
        block = block[:-width] * power + block[width:]
        width *= 2


def _mixed(ids: Any) -> Any:
    """A random-looking number for each id (the finalizer of splitmix64, Steele et al. 2014)."""
    import numpy as np

    x = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def scan(shard: Any, length: int, most: int) -> Iterator[tuple[Any, Any]]:
    """The runs that lie within one document, chunk by chunk: (places, hashes), two arrays.

    Args:
        shard: the tokens of the corpus (data/token_store.py).
        length: tokens of a run.
        most: so many tokens of the corpus are read, from its beginning.
    """
    import numpy as np

    total = min(most, len(shard.ids))
    for start in range(0, total, CHUNK):
        chunk = hashes(shard.ids[start : min(start + CHUNK + length - 1, total)], length)
        places = np.arange(start, start + len(chunk))
        document_ends = shard.starts[np.searchsorted(shard.starts, places, "right")]
        inside = places + length <= document_ends
        yield places[inside], chunk[inside]


def count_runs(shard: Any, length: int, most: int, sample: int) -> tuple[Any, Any]:
    """(first place, occurrences) of about ``sample`` different runs, two arrays.

    Which runs are counted is decided by their hash, so that a run is counted at all its places or
    at none.
    """
    import numpy as np

    total = max(1, min(most, len(shard.ids)))
    limit = np.uint64(min((1 << 64) - 1, int(sample / total * (1 << 64))))
    parts = []
    for places, chunk in scan(shard, length, most):
        counted = chunk <= limit
        values, first, counts = np.unique(chunk[counted], return_index=True, return_counts=True)
        parts.append((values, places[counted][first], counts))
    if not parts:
        empty = np.zeros(0, np.int64)
        return empty, empty
    values, first, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    _, start, which = np.unique(values, return_index=True, return_inverse=True)
    occurrences = np.bincount(which, weights=counts, minlength=len(start))
    return first[start], occurrences.astype(np.int64)


def longest(shard: Any, texts: Sequence[Sequence[int]], most: int) -> list[int]:
    """The length of the longest run of each text that occurs within a document of the corpus.

    A run occurs only if its parts do, so the length is found by bisection. The corpus is read once
    for each length that is tried.

    Args:
        shard: the tokens of the corpus.
        texts: token ids of each text.
        most: so many tokens of the corpus are read, from its beginning.
    """
    import numpy as np

    low = [0] * len(texts)
    high = [len(text) for text in texts]
    while True:
        tried = {
            number: (low[number] + high[number] + 1) // 2
            for number in range(len(texts))
            if low[number] < high[number]
        }
        if not tried:
            return low
        for length in sorted(set(tried.values())):
            runs = {
                number: hashes(np.asarray(texts[number]), length)
                for number in tried
                if tried[number] == length
            }
            occurring = _occurring(shard, np.concatenate(list(runs.values())), length, most)
            for number, own in runs.items():
                if np.isin(own, occurring).any():
                    low[number] = length
                else:
                    high[number] = length - 1


def _occurring(shard: Any, wanted: Any, length: int, most: int) -> Any:
    """Those of the wanted hashes that a run of the corpus has."""
    import numpy as np

    # A table of the first bits of each hash, so that few runs of the corpus need a closer look.
    shift = np.uint64(64 - BITS)
    is_likely = np.zeros(1 << BITS, bool)
    is_likely[wanted >> shift] = True
    seen = [np.unique(chunk[is_likely[chunk >> shift]]) for _, chunk in scan(shard, length, most)]
    if not seen:
        return wanted[:0]
    return np.intersect1d(wanted, np.concatenate(seen))
