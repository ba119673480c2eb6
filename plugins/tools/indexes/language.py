"""The option ``language`` that the indexes share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option
from llmstages.data.passages import Passage
from llmstages.plugins.tools.indexes import words

AUTO, NONE, ENGLISH = "auto", "none", "en"
SAMPLE = 200  # passages whose language is detected


def language_option() -> Any:
    """The field ``language`` of an index."""
    others = [code for code in words.STEMMED if code != ENGLISH]
    return option(
        AUTO,
        "language whose words are compared by their stems (ferries, ferry): auto detects it and "
        "stems English only; none stems nothing; languages other than English need PyStemmer",
        choices=(AUTO, NONE, *words.STEMMED),
        needs=dict.fromkeys(others, ("Stemmer", "llmstages[stemmer]")),
    )


@dataclass(frozen=True)
class Analysis:
    """How the words of one index are compared: decided when it is built, stored with it.

    Attributes:
        language: whose stop words are left out of queries; "" for none.
        stemmed: whether words are compared by their stems.
    """

    language: str
    stemmed: bool

    @property
    def english(self) -> bool:
        """Whether the engine's own stemmer of English is used."""
        return self.stemmed and self.language == ENGLISH

    def stem(self) -> Any:
        """The stemmer of another language than English, or None."""
        return words.stemmer(self.language) if self.stemmed and not self.english else None


def decide(language: str, passages: Iterable[Passage]) -> tuple[Analysis, Iterator[Passage]]:
    """The analysis of an index, and the passages again, of which the first were looked at."""
    stream = iter(passages)
    if language == NONE:
        return Analysis("", False), stream
    if language != AUTO:
        return Analysis(language, True), stream
    sample = list(itertools.islice(stream, SAMPLE))
    detected = words.detect(passage.text for passage in sample)
    return Analysis(detected, detected == ENGLISH), itertools.chain(sample, stream)
