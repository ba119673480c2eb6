"""Near duplicates by MinHash: texts that share most of their 5-word sequences.

Source: FineWeb (Penedo et al. 2024, section 3.4): word 5-grams, 112 hashes in 14 bands of 8, so that a pair of
similarity 0.75 is found with probability 0.77 and one of 0.8 with 0.92; one document of each cluster stays, here the
first in order. Words are compared in lower case, without accents' forms differing (NFC), numbers or punctuation.
Hashes are keyed by the seed and by nothing else: no process, order or Python version changes them.
"""

from __future__ import annotations

import dataclasses as dc
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from llmstages.plugins.corpus.filter import Document, Drop, Verdict
from llmstages.stage import option

WORDS = re.compile(r"\w+")
DIGITS = re.compile(r"\d+")


class MinHashDedup:
    """Keeps the first document of each cluster of near duplicates."""

    @dc.dataclass(frozen=True)
    class Config:
        bands: int = option(14, "groups of hashes; a pair is found when one whole group agrees")
        rows: int = option(8, "hashes in a group")
        ngram: int = option(5, "words in a sequence")
        min_similarity: float = option(0.0, "estimated Jaccard similarity a found pair must have; 0 trusts the bands, as FineWeb does")
        hash_seed: int = option(1, "seed of the hash functions")

    kind = "group"
    version = "1"

    def __init__(self, config: Config) -> None:
        import numpy as np

        self.config = config
        draw = np.random.default_rng(config.hash_seed)
        count = config.bands * config.rows
        self._factors = draw.integers(1, 2**63, count, np.uint64) * np.uint64(2) + np.uint64(1)
        self._terms = draw.integers(0, 2**63, count, np.uint64)
        self._words: dict[str, int] = {}

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        import numpy as np

        c = self.config
        signatures = np.stack([self.signature(document.text) for document in documents]) if documents else np.empty((0, 0))
        parent = list(range(len(documents)))

        def root(index: int) -> int:
            while parent[index] != index:
                parent[index] = index = parent[parent[index]]
            return index

        for band in range(c.bands):
            first: dict[bytes, int] = {}
            for index, part in enumerate(np.ascontiguousarray(signatures[:, band * c.rows:(band + 1) * c.rows])):
                other = first.setdefault(part.tobytes(), index)
                if other != index and _similarity(signatures, other, index) >= c.min_similarity:
                    low, high = sorted((root(other), root(index)))
                    parent[high] = low
        limit = f"< {1 / c.bands ** (1 / c.rows):.2f}" if c.min_similarity <= 0 else f"< {c.min_similarity:g}"
        return [None if root(i) == i else Drop("", f"{_similarity(signatures, root(i), i):.2f} like {documents[root(i)].id}", limit)
                for i in range(len(documents))]

    def signature(self, text: str) -> Any:
        """The MinHash of a text: uint32, bands * rows values."""
        import numpy as np

        words = WORDS.findall(DIGITS.sub("0", unicodedata.normalize("NFC", text.lower())))
        ids = np.fromiter((self._word(word) for word in words), np.uint64, len(words))
        size = min(self.config.ngram, len(ids))
        grams = np.zeros(max(len(ids) - size + 1, 1), np.uint64)
        for offset in range(size):  # a polynomial over the word hashes, modulo 2**64
            grams = grams * np.uint64(0x9E3779B97F4A7C15) + ids[offset:offset + len(grams)]
        grams = np.unique(grams ^ (grams >> np.uint64(29)))
        low = np.full(len(self._factors), np.iinfo(np.uint64).max, np.uint64)
        for start in range(0, len(grams), 4096):  # bounds the table to 4096 x 112 numbers
            table = grams[start:start + 4096, None] * self._factors + self._terms
            low = np.minimum(low, table.min(axis=0))
        return (low >> np.uint64(32)).astype(np.uint32)

    def _word(self, word: str) -> int:
        known = self._words.get(word)
        if known is None:
            known = self._words[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return known


def _similarity(signatures: Any, one: int, other: int) -> float:
    return float((signatures[one] == signatures[other]).mean())
