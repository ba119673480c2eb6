"""The quality rules of Gopher: shape of words and lines, no model.

Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, "quality filtering", with the values
FineWeb uses (Penedo et al. 2024) and rule by rule as datatrove 0.10 decides: punctuation marks
count as words in the shares, and stop words are compared with their case. A document in a language
without a list of stop words is not measured by them.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules
from llmstages.plugins.corpus.languages import STOP_WORDS as OTHER_STOP_WORDS
from llmstages.plugins.corpus.languages import without_stop_words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("•", "-")
ELLIPSES = ("...", "…")


class GopherQuality(Rules):
    """Drops what does not look like prose."""

    @dc.dataclass(frozen=True)
    class Config:
        min_words: int = option(50, "fewest words that are not only punctuation", ge=0)
        max_words: int = option(100_000, "most words that are not only punctuation", ge=0)
        min_word_length: float = option(3.0, "shortest mean word length, characters", ge=0)
        max_word_length: float = option(10.0, "longest mean word length, characters", ge=0)
        max_hashes: float = option(0.1, "most # signs per word", ge=0)
        max_ellipses: float = option(0.1, "most ellipses per word", ge=0)
        max_bullet_lines: float = option(
            0.9, "largest share of lines that start with a bullet", ge=0, le=1
        )
        max_ellipsis_lines: float = option(
            0.3, "largest share of lines that end in an ellipsis", ge=0, le=1
        )
        min_alphabetic: float = option(
            0.8, "smallest share of words (punctuation marks included) with a letter", ge=0, le=1
        )
        min_stop_words: int = option(2, "fewest different stop words", ge=0)
        stop_words: tuple[str, ...] = option(
            STOP_WORDS,
            "the stop words (default: those of the paper for English, and for documents in "
            "another language that the filter `language` found, those in corpus/languages.py)",
        )

    version = "3"
    family = "quality"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._stop = frozenset(config.stop_words)
        self._has_own_words = config.stop_words != STOP_WORDS

    @classmethod
    def language_note(cls, config: Any, languages: Sequence[str]) -> str:
        """What the filter leaves out for documents in these languages; "" for nothing."""
        if config.stop_words != STOP_WORDS or config.min_stop_words == 0:
            return ""
        absent = without_stop_words(languages)
        if not languages:
            absent = [f"languages other than en, {', '.join(OTHER_STOP_WORDS)}"]
        if not absent:
            return ""
        return (
            f"there are no stop words for {', '.join(absent)}: the rule enough_stop_words is not "
            "applied to such documents; to apply it give stop_words=[WORD,...]"
        )

    def _stop_words(self, language: str) -> Iterable[str] | None:
        """The stop words for a document in a language; None if there are none for it."""
        if self._has_own_words or language in ("", "en"):
            return self._stop
        return OTHER_STOP_WORDS.get(language)

    def rules(self, document: Document) -> Iterator[Check]:
        c, text, lengths = self.config, document.text, document.feature("lengths")
        real = lengths[~document.feature("symbols")]
        # The rules have the names of datatrove's, so that funnels can be compared.
        yield Check("short_doc", len(real), least=c.min_words, unit="words")
        yield Check("long_doc", len(real), most=c.max_words, unit="words")
        mean = float(real.mean()) if len(real) else 0.0
        yield Check("below_avg_threshold", mean, least=c.min_word_length, unit="characters a word")
        yield Check("above_avg_threshold", mean, most=c.max_word_length, unit="characters a word")
        total = max(len(lengths), 1)
        yield Check("too_many_hashes", text.count("#") / total, most=c.max_hashes)
        yield Check(
            "too_many_ellipsis", sum(map(text.count, ELLIPSES)) / total, most=c.max_ellipses
        )
        lines = text.splitlines()
        rows = max(len(lines), 1)
        yield Check(
            "too_many_bullets",
            sum(line.lstrip().startswith(BULLETS) for line in lines) / rows,
            most=c.max_bullet_lines,
        )
        yield Check(
            "too_many_end_ellipsis",
            sum(line.rstrip().endswith(ELLIPSES) for line in lines) / rows,
            most=c.max_ellipsis_lines,
        )
        yield Check(
            "below_alpha_threshold",
            int(document.feature("alphabetic").sum()) / total,
            least=c.min_alphabetic,
        )
        stop_words = self._stop_words(document.language)
        if stop_words is None:
            return
        yield Check(
            "enough_stop_words",
            document.different(stop_words),
            least=c.min_stop_words,
            unit="different stop words",
        )
