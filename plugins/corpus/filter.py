"""What a filter is, on one screen.

A filter looks at documents and says for each: keep (None), Drop with the measured value and the limit it broke, or
Edit with the new text. It does no I/O of results, counts nothing and knows no other filter: the corpus stage writes what
was dropped, counts, and checks that nothing is lost. Words, lines and paragraphs are computed once per document, when
first asked for, and shared by all filters (splitting words took 81 % of the time of datatrove's text filters); an edit
invalidates them. Most filters are a list of rules with a value and a limit each:

    class NoShouting(Rules):
        Config = dataclass with ``limit: float``
        version = "1"
        def rules(self, document):
            capitals = sum(map(str.isupper, document.text))
            yield Check("capitals", capitals / len(document.text), most=self.config.limit)

The first rule broken drops the document; with ``corpus.mode=annotate`` all values are written down and nothing is dropped.
"""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

from llmstages.plugins.corpus.words import Splitter, splitter

BLANK_LINES = re.compile(r"\n{2,}")
NEWLINES = re.compile(r"\n+")


class Document:
    """One page on its way through the filters. ``text`` may be set; the views follow. row: its row in the documents."""

    def __init__(
        self,
        id: str,
        url: str,
        text: str = "",
        row: int = -1,
        splitter: Splitter = splitter("fast"),
    ) -> None:
        self.id, self.url, self._text, self.row, self.splitter = id, url, text, row, splitter

    @property
    def text(self) -> str:
        return self._text

    @text.setter
    def text(self, value: str) -> None:
        self._text = value
        for view in ("words", "codes", "lines", "paragraphs"):
            self.__dict__.pop(view, None)

    @cached_property
    def words(self) -> list[str]:
        """Words and punctuation marks in order, as ``corpus.words`` says."""
        return self.splitter.words(self._text)

    @cached_property
    def codes(self) -> Any:
        """The words as numbers (int64, one a word); equal words have equal numbers within a batch."""
        return self.splitter.codes(self._text)

    def feature(self, name: str) -> Any:
        """One value a word: "lengths", "alphabetic", "symbols" or "hashes" (see words.Vocabulary)."""
        codes = self.codes  # first, since it may add words to the vocabulary
        return getattr(self.splitter.vocabulary, name)()[codes]

    def different(self, words: Iterable[str]) -> int:
        """How many of some words occur."""
        codes, vocabulary = self.codes, self.splitter.vocabulary
        return sum(bool((codes == vocabulary[word]).any()) for word in words)

    @cached_property
    def lines(self) -> list[str]:
        """What stands between newlines, unstripped; several newlines count as one."""
        return NEWLINES.split(self._text)

    @cached_property
    def paragraphs(self) -> list[str]:
        """Blocks between blank lines."""
        return BLANK_LINES.split(self._text.strip())


class Drop(NamedTuple):
    """Leave the document out. rule: which of the filter's rules ("" when it has one); limit: as a person would say it."""

    rule: str
    value: float | str
    limit: str


class Edit(NamedTuple):
    """Replace the text. count: how many places changed."""

    text: str
    count: int


class Check(NamedTuple):
    """A value held against a limit: broken below ``least`` or above ``most``. shown: the value in words, where a number says too little."""

    rule: str
    value: float
    least: float | None = None
    most: float | None = None
    unit: str = ""
    shown: str = ""

    @property
    def broken(self) -> bool:
        return (self.least is not None and not self.value >= self.least) or (
            self.most is not None and not self.value <= self.most
        )

    @property
    def limit(self) -> str:
        sides = [f">= {self.least:g}"] if self.least is not None else []
        sides += [f"<= {self.most:g}"] if self.most is not None else []
        return " and ".join(sides) + (f" {self.unit}" if self.unit else "")

    def drop(self) -> Drop:
        return Drop(self.rule, self.shown or self.value, self.limit)


Verdict = Drop | Edit | None


class Filter(Protocol):
    """One class in one file.

    kind: "judge" (drops) or "edit" (edits, may drop what is left empty), both given documents in batches, with no state
    kept between batches, since batches go to several processes; or "group" (see Group). early (optional, default False):
    needs the URL alone and runs before extraction. family (optional): the gold rule that this filter is measured by, where
    it is not the filter's own name ("quality"). measure (optional): the Checks of each document, for mode=annotate.
    """

    Config: ClassVar[type]
    kind: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, config: Any) -> None: ...

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]: ...


class Rules:
    """A filter that is a list of rules. Write ``rules``: it yields a Check each, in order; the first broken one drops."""

    kind = "judge"

    def __init__(self, config: Any) -> None:
        self.config = config

    def rules(self, document: Document) -> Iterator[Check]:
        raise NotImplementedError

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [
            next((check.drop() for check in self.rules(document) if check.broken), None)
            for document in documents
        ]

    def measure(self, documents: Sequence[Document]) -> list[list[Check]]:
        """Every Check of every document, also after a broken one."""
        return [list(self.rules(document)) for document in documents]


@dc.dataclass(frozen=True)
class Signed:
    """What a group filter remembers of the documents that reached it, in order. Memory-mapped, so it may be large.

    rows: int64 array, the row of each in the documents. ids: their ids (indexable). signatures: (n, width) array of uint8.
    """

    rows: Any
    ids: Sequence[str]
    signatures: Any

    def __len__(self) -> int:
        return len(self.rows)


class Group(Protocol):
    """A filter that compares documents with each other (duplicates). ``kind = "group"``.

    sign() runs in many processes; compare() once, over all signatures, and says which documents go. A group that edits
    (``edits = True``) returns from compare() anything that pickles, and judges each document with it.
    """

    kind: ClassVar[str]

    def sign(self, documents: Sequence[Document]) -> Sequence[bytes]:
        """What must be remembered of each document; bytes of one length for all, unless ``edits``."""

    def compare(self, signed: Signed) -> dict[int, Drop]:
        """row -> why it goes."""
