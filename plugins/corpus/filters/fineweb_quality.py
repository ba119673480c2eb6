"""The rules found for FineWeb: lines that end like sentences, are not too short, and do not repeat.

Source: Penedo et al. 2024 (arXiv 2406.17557), section 3.6 and appendix E.2, as datatrove 0.10
decides.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator

from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules
from llmstages.data.words import SENTENCE_ENDS


class FineWebQuality(Rules):
    """Drops lists, menus and tables that passed for prose."""

    @dc.dataclass(frozen=True)
    class Config:
        min_punctuated_lines: float = option(
            0.12,
            "smallest share of lines that end in a mark that ends a sentence, in any script",
            ge=0,
            le=1,
        )
        max_short_lines: float = option(0.67, "largest share of short lines", ge=0, le=1)
        short_line: int = option(30, "a line of at most this many characters is short", ge=0)
        max_duplicate_characters: float = option(
            0.01, "largest share of characters in lines that occurred before", ge=0, le=1
        )
        max_newlines_per_word: float = option(0.3, "most newlines per word", ge=0)

    version = "1"
    family = "quality"

    def rules(self, document: Document) -> Iterator[Check]:
        c = self.config
        text = document.text
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        count = max(len(lines), 1)
        punctuated = sum(line[-1] in SENTENCE_ENDS for line in lines) / count
        yield Check("line_punct_ratio", punctuated, least=c.min_punctuated_lines)
        short = sum(len(line) <= c.short_line for line in lines) / count
        yield Check("short_line_ratio", short, most=c.max_short_lines)
        newlines = text.count("\n")
        repeated = _repeated_characters(lines) / max(len(text) - newlines, 1)
        yield Check("char_dup_ratio", repeated, most=c.max_duplicate_characters)
        newlines_per_word = newlines / max(len(document.codes), 1)
        yield Check("list_ratio", newlines_per_word, most=c.max_newlines_per_word)


def _repeated_characters(lines: list[str]) -> int:
    """Characters of the lines that occurred before."""
    if len(set(lines)) == len(lines):
        return 0
    seen: set[str] = set()
    characters = 0
    for line in lines:
        if line in seen:
            characters += len(line)
        seen.add(line)
    return characters
