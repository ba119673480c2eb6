"""The repetition rules of Gopher: duplicate paragraphs and lines, and n-grams that fill the text.

Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, table A1, with the values FineWeb uses. One deliberate
difference: an n-gram that occurs once is no repetition, although the most frequent n-gram of a very short text may
cover a large share of it. N-grams are compared by number, longer ones only while shorter ones still repeat.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Sequence
from typing import Any

from llmstages.plugins.corpus.filter import Document, Drop, Verdict
from llmstages.stage import option

TOP = (2, 3, 4)
ALL = (5, 6, 7, 8, 9, 10)


class GopherRepetition:
    """Drops text that repeats itself. All limits are shares of the document, 0 to 1."""

    @dc.dataclass(frozen=True)
    class Config:
        max_duplicate_paragraphs: float = option(0.30, "share of paragraphs that occurred before")
        max_duplicate_paragraph_characters: float = option(0.20, "share of characters in such paragraphs")
        max_duplicate_lines: float = option(0.30, "share of lines that occurred before")
        max_duplicate_line_characters: float = option(0.20, "share of characters in such lines")
        max_top_ngrams: tuple[float, ...] = option((0.20, 0.18, 0.16), "characters in the most frequent 2-, 3- and 4-gram")
        max_all_ngrams: tuple[float, ...] = option((0.15, 0.14, 0.13, 0.12, 0.11, 0.10), "characters in repeated 5- to 10-grams")

        def __post_init__(self) -> None:
            if len(self.max_top_ngrams) != len(TOP) or len(self.max_all_ngrams) != len(ALL):
                raise ValueError(f"max_top_ngrams needs {len(TOP)} values (for {TOP}) and max_all_ngrams {len(ALL)} (for {ALL})")

    kind = "judge"
    version = "1"
    family = "quality"

    def __init__(self, config: Config) -> None:
        self.config = config

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [self._judge(document) for document in documents]

    def _judge(self, document: Document) -> Verdict:
        c, size = self.config, max(len(document.text), 1)
        for rule, parts, share, characters in (
            ("duplicate_paragraphs", document.paragraphs, c.max_duplicate_paragraphs, c.max_duplicate_paragraph_characters),
            ("duplicate_lines", document.lines, c.max_duplicate_lines, c.max_duplicate_line_characters),
        ):
            repeated, length = _repeated(parts)
            if repeated / max(len(parts), 1) > share:
                return Drop(rule, repeated / len(parts), f"<= {share:g}")
            if length / size > characters:
                return Drop(f"{rule[:-1]}_characters", length / size, f"<= {characters:g}")
        return self._ngrams(document.words, size)

    def _ngrams(self, words: list[str], size: int) -> Verdict:
        import numpy as np

        numbers: dict[str, int] = {}
        ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64, len(words))
        ends = np.cumsum([0] + [len(word) for word in words])
        grams = ids
        for n in range(2, ALL[-1] + 1):
            if len(words) < n:
                break
            pairs = grams[:-1] * len(numbers) + ids[n - 1:]  # one number for each (shorter n-gram, next word)
            _, grams, counts = np.unique(pairs, return_inverse=True, return_counts=True)
            if len(counts) == len(grams):  # nothing of this length repeats, so nothing longer does
                break
            lengths = ends[n:] - ends[:-n]
            if n in TOP:
                value, limit, rule = self._top(grams, counts, lengths, n), self.config.max_top_ngrams[TOP.index(n)], f"top_{n}gram"
            elif n in ALL:
                limit, rule = self.config.max_all_ngrams[ALL.index(n)], f"all_{n}grams"
                value = _all(grams, counts, lengths, n, limit * size)
            else:
                continue
            if value / size > limit:
                return Drop(rule, float(value / size), f"<= {limit:g}")
        return None

    @staticmethod
    def _top(grams: Any, counts: Any, lengths: Any, n: int) -> int:
        """Characters in the most frequent n-gram, blanks between its words included; the first one wins a tie."""
        import numpy as np

        most = counts.max()
        first = int(np.argmax(counts[grams] == most))
        return int(most) * (int(lengths[first]) + n - 1)


def _repeated(parts: list[str]) -> tuple[int, int]:
    """How many parts occurred before, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count, characters = count + 1, characters + len(part)
        seen.add(part)
    return count, characters


def _all(grams: Any, counts: Any, lengths: Any, n: int, enough: float) -> int:
    """Characters in repeated n-grams, read from the left without overlap; exact only where it could pass ``enough``."""
    repeats = counts[grams] > 1
    if int(lengths[repeats].sum()) <= enough:  # overlaps counted several times: an upper bound
        return 0
    seen: set[int] = set()
    total = at = 0
    numbers, sizes = grams.tolist(), lengths.tolist()
    while at < len(numbers):
        if numbers[at] in seen:
            total, at = total + sizes[at], at + n
        else:
            seen.add(numbers[at])
            at += 1
    return total
