"""The option ``language`` that the indexes share."""

from __future__ import annotations

import dataclasses as dc
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from llmstages.core.stage import option
from llmstages.data.passages import Passage
from llmstages.plugins.tools.indexes import words

AUTO, NONE, ENGLISH = "auto", "none", "en"
SAMPLE = 1000  # passages, the first ones, whose language is detected


def language_option() -> Any:
    """The field ``language`` of an index."""
    others = [code for code in words.STEMMED if code != ENGLISH]
    return option(
        AUTO,
        "language whose words are compared by their stems (ferries, ferry): auto stems as English "
        "if some of the pages are; none stems nothing; languages other than English need PyStemmer",
        choices=(AUTO, NONE, *words.STEMMED),
        needs=dict.fromkeys(others, ("Stemmer", "llmstages[stemmer]")),
    )


@dc.dataclass(frozen=True)
class Analysis:
    """How the words of one index are compared: decided when it is built, stored with it.

    Attributes:
        languages: whose stop words are left out of queries.
        stemmed: the language whose stems are compared; "" for none.
    """

    languages: tuple[str, ...]
    stemmed: str

    @property
    def english(self) -> bool:
        """Whether the engine's own stemmer of English is used."""
        return self.stemmed == ENGLISH

    def stem(self) -> Any:
        """The stemmer of another language than English, or None."""
        return words.stemmer(self.stemmed) if self.stemmed and not self.english else None

    def as_json(self) -> str:
        """To be stored with the index."""
        return json.dumps(dc.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Analysis:
        """What ``as_json`` gave."""
        facts = json.loads(text)
        return cls(tuple(facts["languages"]), facts["stemmed"])


def decide(language: str, passages: Iterable[Passage]) -> tuple[Analysis, Iterator[Passage]]:
    """The analysis of an index, and the passages again, of which the first were looked at."""
    stream = iter(passages)
    if language == NONE:
        return Analysis((), ""), stream
    if language != AUTO:
        return Analysis((language,), language), stream
    sample = list(itertools.islice(stream, SAMPLE))
    detected = words.detect(passage.text for passage in sample)
    # Its stemmer leaves most words of other languages as they are, or merges forms of one word.
    stemmed = ENGLISH if ENGLISH in detected else ""
    return Analysis(detected, stemmed), itertools.chain(sample, stream)
