"""What filters work with: documents, verdicts, and rules with a value and a limit.

A filter looks at documents and gives a verdict on each: None keeps it, a Drop names the measured
value and the limit it broke, an Edit has the new text. A filter does no I/O of results, counts
nothing and knows no other filter: the corpus stage writes what was dropped, counts, and checks
that nothing is lost. Words, lines and paragraphs are computed once per document, when first used,
and shared by all filters (splitting words took 81 % of the time of datatrove's text filters); an
edit invalidates them. Most
filters are a list of rules:

    class NoShouting(Rules):
        Config = a dataclass with ``limit: float``
        version = "1"
        def rules(self, document):
            capitals = sum(map(str.isupper, document.text))
            yield Check("capitals", capitals / len(document.text), most=self.config.limit)

The first broken rule drops the document. With ``corpus.mode=annotate`` all values are written
down and nothing is dropped.
"""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from llmstages.data.words import Splitter, splitter

BLANK_LINES = re.compile(r"\n{2,}")
NEWLINES = re.compile(r"\n+")
VIEWS = ("words", "codes", "lines", "paragraphs")
DEFAULT_SPLITTER = splitter("fast")


class Document:
    """One page on its way through the filters. ``text`` may be set; the views follow.

    Args:
        id, url, text: of the page.
        row: its row in the documents artifact.
        splitter: how it is cut into words.
        language: the code of its language; "" if it is not known. A filter may find it out.
    """

    def __init__(
        self,
        id: str,
        url: str,
        text: str = "",
        row: int = -1,
        splitter: Splitter = DEFAULT_SPLITTER,
        language: str = "",
    ) -> None:
        self.id = id
        self.url = url
        self._text = text
        self.row = row
        self.splitter = splitter
        self.language = language

    @property
    def text(self) -> str:
        return self._text

    @text.setter
    def text(self, value: str) -> None:
        self._text = value
        for view in VIEWS:
            self.__dict__.pop(view, None)

    @cached_property
    def words(self) -> list[str]:
        """Words and punctuation marks in order, as ``corpus.words`` says."""
        return self.splitter.words(self._text)

    @cached_property
    def codes(self) -> Any:
        """The words as numbers (int64 array); equal words have equal numbers within a batch."""
        return self.splitter.codes(self._text)

    def feature(self, name: str) -> Any:
        """One value for each word: "lengths", "alphabetic", "symbols" or "hashes".

        See words.Vocabulary.
        """
        codes = self.codes  # first, since it may add words to the vocabulary
        return getattr(self.splitter.vocabulary, name)()[codes]

    def different(self, words: Iterable[str]) -> int:
        """How many of the given words occur."""
        codes, vocabulary = self.codes, self.splitter.vocabulary
        return sum(bool((codes == vocabulary[word]).any()) for word in words)

    @cached_property
    def lines(self) -> list[str]:
        """The texts between newlines, unstripped; several newlines count as one."""
        return NEWLINES.split(self._text)

    @cached_property
    def paragraphs(self) -> list[str]:
        """The blocks between blank lines."""
        return BLANK_LINES.split(self._text.strip())


class Drop(NamedTuple):
    """Leave the document out.

    Attributes:
        rule: which of the filter's rules was broken; "" where the filter has one rule.
        value: what was measured.
        limit: the limit as people would say it.
    """

    rule: str
    value: float | str
    limit: str


class Edit(NamedTuple):
    """Replace the text of the document; ``count`` places changed."""

    text: str
    count: int


class Check(NamedTuple):
    """A measured value and its limit: broken below ``least`` or above ``most``.

    Attributes:
        rule: the name of the rule.
        value: what was measured.
        least, most: the limits; None for no limit.
        unit: of the value, for people.
        shown: the value in words, where the number says too little.
    """

    rule: str
    value: float
    least: float | None = None
    most: float | None = None
    unit: str = ""
    shown: str = ""

    @property
    def broken(self) -> bool:
        # Written so that NaN breaks every limit.
        too_small = self.least is not None and not self.value >= self.least
        too_large = self.most is not None and not self.value <= self.most
        return too_small or too_large

    @property
    def limit(self) -> str:
        sides = []
        if self.least is not None:
            sides.append(f">= {self.least:g}")
        if self.most is not None:
            sides.append(f"<= {self.most:g}")
        text = " and ".join(sides)
        return f"{text} {self.unit}" if self.unit else text

    def drop(self) -> Drop:
        return Drop(self.rule, self.shown or self.value, self.limit)


Verdict = Drop | Edit | None


class Rules:
    """A filter that is a list of rules.

    Write ``rules``: it yields a Check for each rule, in order; the first broken one drops.
    """

    kind = "judge"

    def __init__(self, config: Any) -> None:
        self.config = config

    def rules(self, document: Document) -> Iterator[Check]:
        """The checks of a document."""
        raise NotImplementedError

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        """One verdict for each document."""
        return [self._first_broken(document) for document in documents]

    def _first_broken(self, document: Document) -> Drop | None:
        for check in self.rules(document):
            if check.broken:
                return check.drop()
        return None

    def measure(self, documents: Sequence[Document]) -> list[list[Check]]:
        """All checks of each document, also after a broken one."""
        return [list(self.rules(document)) for document in documents]


@dc.dataclass(frozen=True)
class Signatures:
    """What a filter of kind "group" remembers of the documents that reached it, in order.

    It is memory-mapped, so it may be large.

    Attributes:
        rows: int64 array, the row of each document in the documents artifact.
        ids: their ids (indexable).
        signatures: uint8 array of shape (documents, width).
    """

    rows: Any
    ids: Sequence[str]
    signatures: Any

    def __len__(self) -> int:
        return len(self.rows)
