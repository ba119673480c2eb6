"""The quality rules of Gopher: shape of words and lines, no model.

Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, "quality filtering", with the values
FineWeb uses (Penedo et al. 2024) and rule by rule as datatrove 0.10 decides: punctuation marks
count as words in the shares, and stop words are compared with their case.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator

from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules

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
            STOP_WORDS, "the stop words (default: English, as in the paper)"
        )

    version = "2"
    family = "quality"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._stop = frozenset(config.stop_words)

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
        yield Check(
            "enough_stop_words",
            document.different(self._stop),
            least=c.min_stop_words,
            unit="different stop words",
        )
