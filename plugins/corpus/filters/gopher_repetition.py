"""The repetition rules of Gopher: duplicate paragraphs and lines, and n-grams that fill the text.

Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, table A1, with the values FineWeb
uses, rule by rule as datatrove 0.10 decides. N-grams are compared as numbers: an n-gram can
repeat only where both (n-1)-grams in it do, so each length looks at what the one before it left
over, which is soon nothing.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator
from typing import Any

from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules

TOP = (2, 3, 4)
ALL = (5, 6, 7, 8, 9, 10)


class GopherRepetition(Rules):
    """Drops text that repeats itself.

    All limits are shares of the document. The share of the most frequent n-gram can be above 1,
    since its occurrences may overlap.
    """

    @dc.dataclass(frozen=True)
    class Config:
        max_duplicate_paragraphs: float = option(
            0.30, "share of paragraphs that occurred before", ge=0, le=1
        )
        max_duplicate_paragraph_characters: float = option(
            0.20, "share of characters in such paragraphs", ge=0, le=1
        )
        max_duplicate_lines: float = option(0.30, "share of lines that occurred before", ge=0, le=1)
        max_duplicate_line_characters: float = option(
            0.20, "share of characters in such lines", ge=0, le=1
        )
        max_top_ngrams: tuple[float, ...] = option(
            (0.20, 0.18, 0.16), "characters in the most frequent 2-, 3- and 4-gram", ge=0
        )
        max_all_ngrams: tuple[float, ...] = option(
            (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
            "characters in repeated 5- to 10-grams",
            ge=0,
            le=1,
        )

        def __post_init__(self) -> None:
            if len(self.max_top_ngrams) != len(TOP) or len(self.max_all_ngrams) != len(ALL):
                raise ValueError(
                    f"max_top_ngrams needs {len(TOP)} values (for {TOP}) and max_all_ngrams"
                    f" {len(ALL)} (for {ALL})"
                )

    version = "2"
    family = "quality"

    def rules(self, document: Document) -> Iterator[Check]:
        c = self.config
        size = max(len(document.text), 1)
        count, characters = _repeated(document.paragraphs)
        share = count / max(len(document.paragraphs), 1)
        yield Check("dup_para_frac", share, most=c.max_duplicate_paragraphs)
        share = characters / size
        yield Check("dup_para_char_frac", share, most=c.max_duplicate_paragraph_characters)
        count, characters = _repeated(document.lines)
        share = count / max(len(document.lines), 1)
        yield Check("dup_line_frac", share, most=c.max_duplicate_lines)
        share = characters / size
        yield Check("dup_line_char_frac", share, most=c.max_duplicate_line_characters)
        lengths = document.feature("lengths")
        for n, repeats in _repeats(document.codes):
            if n in TOP:
                limit = c.max_top_ngrams[TOP.index(n)]
                yield Check(f"top_{n}_gram", repeats.top(lengths, n) / size, most=limit)
            elif n in ALL:
                limit = c.max_all_ngrams[ALL.index(n)]
                yield Check(f"duplicated_{n}_n_grams", repeats.all(lengths, n) / size, most=limit)


@dc.dataclass(frozen=True)
class _Repeats:
    """The n-grams that occur more than once: their starts, in order; equal ones share a number."""

    starts: Any
    groups: Any

    def top(self, lengths: Any, n: int) -> int:
        """Characters of the most frequent n-gram times its count, with blanks between words.

        The first one wins a tie.
        """
        import numpy as np

        if len(lengths) < n:
            return 0
        if not len(self.starts):
            # Every n-gram occurs once, so the first one wins.
            return int(lengths[:n].sum()) + n - 1
        counts = np.bincount(self.groups)[self.groups]
        at = int(np.argmax(counts))
        start = int(self.starts[at])
        return int(counts[at]) * (int(lengths[start : start + n].sum()) + n - 1)

    def all(self, lengths: Any, n: int) -> int:
        """Characters in repeated n-grams, read from the left without overlap."""
        if not len(self.starts):
            return 0
        import numpy as np

        ends = np.concatenate([[0], np.cumsum(lengths)])
        sizes = (ends[self.starts + n] - ends[self.starts]).tolist()
        seen: set[int] = set()
        total = free = 0
        for start, group, size in zip(
            self.starts.tolist(), self.groups.tolist(), sizes, strict=True
        ):
            if start < free:
                continue
            if group in seen:
                total += size
                free = start + n
            else:
                seen.add(group)
        return total


def _repeats(codes: Any) -> Iterator[tuple[int, _Repeats]]:
    """(n, its repeats) for n = 2 to 10."""
    import numpy as np

    starts = np.arange(len(codes))
    groups = codes
    spread = int(codes.max()) + 1 if len(codes) else 1
    for n in range(2, ALL[-1] + 1):
        # An n-gram can repeat only where both of its (n-1)-grams do, which start side by side.
        beside = np.flatnonzero(starts[1:] == starts[:-1] + 1)
        if not len(beside):
            starts, groups = starts[:0], groups[:0]
            yield n, _Repeats(starts, groups)
            continue
        keys = groups[beside] * spread + groups[beside + 1]
        order = np.argsort(keys)
        ordered = keys[order]
        same = ordered[1:] == ordered[:-1]
        is_first = np.concatenate([[True], ~same])
        repeats = np.zeros(len(keys), bool)
        repeats[order] = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        numbers = np.empty(len(keys), np.int64)
        numbers[order] = np.cumsum(is_first) - 1
        starts = starts[beside][repeats]
        groups = numbers[repeats]
        spread = int(numbers.max()) + 1
        yield n, _Repeats(starts, groups)


def _repeated(parts: list[str]) -> tuple[int, int]:
    """How many parts occurred before, and their characters."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count, characters = count + 1, characters + len(part)
        seen.add(part)
    return count, characters
