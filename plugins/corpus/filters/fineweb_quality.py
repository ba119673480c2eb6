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
        c, text = self.config, document.text
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        count = max(len(lines), 1)
        yield Check(
            "line_punct_ratio",
            sum(line[-1] in SENTENCE_ENDS for line in lines) / count,
            least=c.min_punctuated_lines,
        )
        yield Check(
            "short_line_ratio",
            sum(len(line) <= c.short_line for line in lines) / count,
            most=c.max_short_lines,
        )
        repeated, seen = 0, set()
        if len(set(lines)) < len(lines):
            for line in lines:
                repeated += len(line) if line in seen else 0
                seen.add(line)
        newlines = text.count("\n")
        yield Check(
            "char_dup_ratio",
            repeated / max(len(text) - newlines, 1),
            most=c.max_duplicate_characters,
        )
        yield Check(
            "list_ratio", newlines / max(len(document.codes), 1), most=c.max_newlines_per_word
        )
