"""Near duplicates by MinHash: texts that share most of their 5-word sequences.

Source: FineWeb (Penedo et al. 2024, section 3.4): word 5-grams, 112 hashes in 14 bands of 8, so
that a pair of similarity 0.75 is found with probability 0.77 and one of 0.8 with 0.92; one
document of each connected cluster stays, here the first in order. Words are compared in lower
case, without accents, numbers' digits or punctuation. Hashes are keyed by the seed and by nothing
else: no process, batch, order or Python version changes them. A text without any word is like no
other.
"""

from __future__ import annotations

import dataclasses as dc
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmstages.core.stage import option
from llmstages.data.filtering import Document, Drop, Signatures
from llmstages.plugins.corpus.filters.duplicates import Duplicates, equal, join

BLOCK = (
    1 << 16
)  # n-grams hashed at a time, and signatures compared at a time, so that they stay in cache


class MinHashDedup:
    """Keeps the first document of each cluster of near duplicates."""

    @dc.dataclass(frozen=True)
    class Config:
        bands: int = option(
            14, "groups of hashes; a pair is found when one whole group agrees", ge=1
        )
        rows: int = option(8, "hashes in a group", ge=1)
        ngram: int = option(5, "words in a sequence", ge=1)
        min_similarity: float = option(
            0.0,
            "estimated Jaccard similarity a found pair must have; 0 trusts the bands, as FineWeb"
            " does",
            ge=0,
            le=1,
        )
        hash_seed: int = option(1, "seed of the hash functions")

    kind = "group"
    version = "3"

    def __init__(self, config: Config) -> None:
        import numpy as np

        self.config = config
        count = config.bands * config.rows
        drawn = np.frombuffer(
            hashlib.shake_128(f"minhash {config.hash_seed}".encode()).digest(8 * count), "<u4"
        ).astype(np.uint32)
        # An odd factor gives no two n-grams the same value.
        self._factors = drawn[:count] | np.uint32(1)
        self._terms = drawn[count:]

    def sign(self, documents: Sequence[Document]) -> list[bytes]:
        """bands * rows numbers (uint32) a document: the least value of each hash function."""
        import numpy as np

        width = 4 * len(self._factors)
        grams = [self._grams(document.feature("hashes")) for document in documents]
        signed = []
        for gram, document in zip(grams, documents, strict=True):
            if len(gram):
                signed.append(b"")
                continue
            # A text without any word is like no other: it gets a signature of its id.
            name = document.id.encode("utf-8", "replace")
            signed.append(hashlib.shake_128(name).digest(width))
        for block in _blocks(grams):
            least = self._least([grams[i] for i in block])
            for i, signature in zip(block, np.ascontiguousarray(least.T, "<u4"), strict=True):
                signed[i] = signature.tobytes()
        return signed

    def _grams(self, hashes: Any) -> Any:
        """One number (uint32) for each n-gram of the words that have a letter or digit.

        A text of fewer words is one n-gram.
        """
        import numpy as np

        words = hashes[hashes != 0].astype(np.uint64)
        size = min(self.config.ngram, len(words))
        grams = np.zeros(len(words) - size + 1 if size else 0, np.uint64)
        for offset in range(size):  # a polynomial over the words, modulo 2**64
            grams *= np.uint64(0x9E3779B97F4A7C15)
            grams += words[offset : offset + len(grams)]
        grams ^= grams >> np.uint64(32)
        grams *= np.uint64(0xD6E8FEB86659FD93)
        return (grams >> np.uint64(32)).astype(np.uint32)

    def _least(self, grams: Sequence[Any]) -> Any:
        """Least values of shape (hash functions, documents).

        One hash function at a time over all n-grams of several documents is seven times as fast as
        one document at a time.
        """
        import numpy as np

        together = np.concatenate(grams)
        begins = np.cumsum([0, *map(len, grams[:-1])])
        hashed = np.empty_like(together)
        least = np.empty((len(self._factors), len(grams)), np.uint32)
        for i, (factor, term) in enumerate(zip(self._factors, self._terms, strict=True)):
            np.multiply(together, factor, out=hashed)
            np.add(hashed, term, out=hashed)
            np.minimum.reduceat(hashed, begins, out=least[i])
        return least

    def compare(self, signed: Signatures) -> Mapping[int, Drop]:
        import numpy as np

        if not len(signed):
            return {}
        c, table = self.config, signed.signatures.view("<u4")
        roots = np.arange(len(table), dtype=np.int64)
        for band in range(c.bands):
            columns = slice(band * c.rows, (band + 1) * c.rows)
            ones, others = equal(_keys(table, columns))
            # Pairs that are in one cluster already need no comparison.
            apart = roots[ones] != roots[others]
            ones, others = ones[apart], others[apart]
            found = _shared(table, columns, ones, others) == c.rows
            if c.min_similarity > 0:
                shared = _shared(table, slice(None), ones, others)
                found &= shared >= c.min_similarity * table.shape[1]
            join(roots, ones[found], others[found])
        gone = np.flatnonzero(roots != np.arange(len(roots)))
        gone = gone[np.argsort(signed.rows[gone])]
        firsts = roots[gone]
        similarity = _shared(table, slice(None), firsts, gone) / table.shape[1]
        limit = f"no group of {c.rows} hashes equal to one before it"
        if c.min_similarity > 0:
            limit = f"< {c.min_similarity:g}"

        def drop(i: int) -> Drop:
            return Drop("", f"{similarity[i]:.2f} like {signed.ids[int(firsts[i])]}", limit)

        return Duplicates(signed.rows[gone], drop)


def _keys(table: Any, columns: slice) -> Any:
    """One number (uint64) a signature, equal where the columns are (and hardly ever elsewhere)."""
    import numpy as np

    keys = np.zeros(len(table), np.uint64)
    for start in range(0, len(table), BLOCK):
        part = keys[start : start + BLOCK]
        block = table[start : start + BLOCK, columns].astype(np.uint64)
        for column in block.T:
            part += column + np.uint64(1)
            part *= np.uint64(0x9E3779B97F4A7C15)
            part ^= part >> np.uint64(32)
    return keys


def _shared(table: Any, columns: slice, ones: Any, others: Any) -> Any:
    """In how many columns the signatures of each pair agree."""
    import numpy as np

    counts = np.zeros(len(ones), np.int64)
    for start in range(0, len(ones), BLOCK):
        one = table[ones[start : start + BLOCK], columns]
        other = table[others[start : start + BLOCK], columns]
        counts[start : start + BLOCK] = (one == other).sum(axis=1)
    return counts


def _blocks(grams: Sequence[Any]) -> Iterator[list[int]]:
    """Numbers of the documents with n-grams, in blocks of about BLOCK n-grams."""
    block: list[int] = []
    size = 0
    for i, gram in enumerate(grams):
        if block and size + len(gram) > BLOCK:
            yield block
            block, size = [], 0
        if len(gram):
            block.append(i)
            size += len(gram)
    if block:
        yield block
