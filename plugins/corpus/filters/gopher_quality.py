"""The quality rules of Gopher: shape of words and lines, no model.

Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, "quality filtering", with the values FineWeb uses
(Penedo et al. 2024). As there, the share of alphabetic words counts punctuation marks as words.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Sequence

from llmstages.plugins.corpus.filter import Document, Drop, Verdict
from llmstages.stage import option

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("•", "‣", "▪", "◦", "●", "-", "*", "–")
ELLIPSES = ("...", "…")


class GopherQuality:
    """Drops what does not look like prose."""

    @dc.dataclass(frozen=True)
    class Config:
        min_words: int = option(50, "fewest words that are not only punctuation")
        max_words: int = option(100_000, "most words that are not only punctuation")
        min_word_length: float = option(3.0, "shortest mean word length, characters")
        max_word_length: float = option(10.0, "longest mean word length, characters")
        max_hashes: float = option(0.1, "most # signs per word")
        max_ellipses: float = option(0.1, "most ellipses per word")
        max_bullet_lines: float = option(0.9, "largest share of lines that start with a bullet")
        max_ellipsis_lines: float = option(0.3, "largest share of lines that end in an ellipsis")
        min_alphabetic: float = option(0.8, "smallest share of words (punctuation marks included) with a letter")
        min_stop_words: int = option(2, "fewest different stop words")
        stop_words: tuple[str, ...] = option(STOP_WORDS, "the stop words (default: English, as in the paper)")

    kind = "judge"
    version = "1"
    family = "quality"

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stop = frozenset(config.stop_words)

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [self._judge(document) for document in documents]

    def _judge(self, document: Document) -> Verdict:
        c, words, lines = self.config, document.words, document.lines
        lengths = [len(word) for word in words if word[0].isalnum() or len(word) > 1 and any(map(str.isalnum, word))]
        count = len(lengths)
        if count < c.min_words:
            return Drop("min_words", count, f">= {c.min_words} words")
        if count > c.max_words:
            return Drop("max_words", count, f"<= {c.max_words} words")
        mean = sum(lengths) / max(count, 1)
        if not c.min_word_length <= mean <= c.max_word_length:
            return Drop("word_length", mean, f"{c.min_word_length:g} to {c.max_word_length:g} characters")
        total, rows = max(len(words), 1), max(len(lines), 1)
        for rule, value, limit in (
            ("hashes", document.text.count("#") / total, c.max_hashes),
            ("ellipses", sum(document.text.count(sign) for sign in ELLIPSES) / total, c.max_ellipses),
            ("bullet_lines", sum(line.startswith(BULLETS) for line in lines) / rows, c.max_bullet_lines),
            ("ellipsis_lines", sum(line.endswith(ELLIPSES) for line in lines) / rows, c.max_ellipsis_lines),
        ):
            if value > limit:
                return Drop(rule, value, f"<= {limit:g}")
        alphabetic = sum(any(map(str.isalpha, word)) for word in words) / total
        if alphabetic < c.min_alphabetic:
            return Drop("alphabetic", alphabetic, f">= {c.min_alphabetic:g}")
        stops = len(self._stop.intersection(words))
        if stops < c.min_stop_words:
            return Drop("stop_words", stops, f">= {c.min_stop_words} different stop words")
        return None
