"""Exact duplicates: the same text but for blanks and letter case. The first document in order is kept."""

from __future__ import annotations

import dataclasses as dc
import hashlib
from collections.abc import Sequence

from llmstages.plugins.corpus.filter import Document, Drop, Verdict
from llmstages.stage import option


class ExactDedup:
    """Keeps the first of equal texts."""

    @dc.dataclass(frozen=True)
    class Config:
        ignore_case: bool = option(True, "texts that differ in letter case alone are equal")

    kind = "group"
    version = "1"

    def __init__(self, config: Config) -> None:
        self.config = config

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        first: dict[bytes, str] = {}
        verdicts: list[Verdict] = []
        for document in documents:
            text = " ".join(document.text.split())
            key = hashlib.sha256((text.lower() if self.config.ignore_case else text).encode()).digest()
            other = first.get(key)
            verdicts.append(None if other is None else Drop("", f"same as {other}", "no equal text before it"))
            first.setdefault(key, document.id)
        return verdicts
