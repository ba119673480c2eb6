"""Exact duplicates: the same text except for blanks and letter case; the first one is kept."""

from __future__ import annotations

import dataclasses as dc
import hashlib
from collections.abc import Mapping, Sequence

from llmstages.core.stage import option
from llmstages.data.filtering import Document, Drop, Signatures
from llmstages.plugins.corpus.filters.duplicates import Duplicates, equal


class ExactDedup:
    """Keeps the first of equal texts."""

    @dc.dataclass(frozen=True)
    class Config:
        ignore_case: bool = option(True, "texts that differ in letter case alone are equal")

    kind = "group"
    version = "2"

    def __init__(self, config: Config) -> None:
        self.config = config

    def sign(self, documents: Sequence[Document]) -> list[bytes]:
        """16 bytes: a digest of the text without the number and kind of its blanks."""
        return [self._digest(document.text) for document in documents]

    def _digest(self, text: str) -> bytes:
        text = " ".join(text.split())
        if self.config.ignore_case:
            text = text.lower()
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()

    def compare(self, signed: Signatures) -> Mapping[int, Drop]:
        import numpy as np

        if not len(signed):
            return {}
        halves = np.ascontiguousarray(signed.signatures).view("<u8")
        firsts, others = equal(halves[:, 0])
        # Equal halves of 64 bits are rare among different texts; the other half decides.
        both_equal = halves[firsts, 1] == halves[others, 1]
        firsts, others = firsts[both_equal], others[both_equal]
        order = np.argsort(signed.rows[others])
        firsts = firsts[order]

        def drop(i: int) -> Drop:
            return Drop("", f"same as {signed.ids[int(firsts[i])]}", "no equal text before it")

        return Duplicates(signed.rows[others[order]], drop)
