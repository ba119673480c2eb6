"""Pages and the passages that they are searched by.

A long page is cut at the ends of paragraphs or sentences, so that a search finds the place and not
only the page. The id of a passage follows from the content of its page: two runs give one passage
the same id, and an answer can be traced to its page. Left out on purpose: cutting by tokens, which
would tie an index to one tokenizer.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmstages.core.digest import sha256

ID_DIGITS = 16
PARAGRAPH_END = re.compile(r"\n\s*\n\s*")
# A line ends, or a sentence of any script; the fullwidth signs need no blank after them.
SENTENCE_END = re.compile(
    r"""\n\s*|[.!?\u2026\u061f\u06d4\u0964\u0965\u1362\u104b]+["'\u201d\u2019\u00bb)\]]*\s+"""
    r"""|[\u3002\uff01\uff1f\uff0e]+["\u201d\u2019\u300d\u300f\uff09]*\s*"""
)
BLANK = re.compile(r"\s+")


@dataclass(frozen=True)
class Page:
    """A page as it is indexed.

    Attributes:
        text: its whole text.
        url: its address, or "".
        title: its title, or "".
        source: the ``id`` of its row in the artifact it comes from, or "".
    """

    text: str
    url: str = ""
    title: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        """The same for equal texts of one address, and only for these."""
        return sha256(f"{self.url}\0{self.text}")[:ID_DIGITS]


@dataclass(frozen=True)
class Passage:
    """A part of a page: ``text`` begins at the character ``start`` of the page.

    ``id`` is the id of the page with the number of the passage (``1f0c...:2``); the other fields
    are those of the page.
    """

    id: str
    text: str
    start: int = 0
    url: str = ""
    title: str = ""
    source: str = ""


def split(page: Page, characters: int, overlap: int = 0) -> Iterator[Passage]:
    """Yield the passages of a page, in order. A page that is short enough is left as it is.

    Args:
        page: the page; one without any text has no passage.
        characters: the longest passage.
        overlap: characters that a passage repeats of the one before it, at most; whole sentences.
    """
    page_id = page.id
    for number, (start, end) in enumerate(spans(page.text, characters, overlap)):
        text = page.text[start:end]
        yield Passage(f"{page_id}:{number}", text, start, page.url, page.title, page.source)


def spans(text: str, characters: int, overlap: int = 0) -> Iterator[tuple[int, int]]:
    """(start, end) of each passage of a text. See ``split``."""
    if not text.strip():
        return
    if len(text) <= characters:
        yield 0, len(text)
        return
    paragraphs = [match.end() for match in PARAGRAPH_END.finditer(text)]
    sentences = sorted({*paragraphs, *(match.end() for match in SENTENCE_END.finditer(text))})
    start = 0
    while start < len(text):
        end = _end(text, start, characters, paragraphs, sentences)
        first, last = _trimmed(text, start, end)
        if first < last:
            yield first, last
        if end >= len(text):
            return
        start = _next_start(start, end, overlap, sentences)


def _end(
    text: str, start: int, characters: int, paragraphs: Sequence[int], sentences: Sequence[int]
) -> int:
    """Where a passage ends: the end of a paragraph, else of a sentence, else of a word."""
    limit = start + characters
    if limit >= len(text):
        return len(text)
    half = start + characters // 2
    # A paragraph that ends early would leave short passages without a context.
    for ends, least in ((paragraphs, half), (sentences, start)):
        place = bisect_right(ends, limit) - 1
        if place >= 0 and ends[place] > least:
            return ends[place]
    blanks = [match.end() for match in BLANK.finditer(text, half, limit)]
    return blanks[-1] if blanks else limit


def _next_start(start: int, end: int, overlap: int, sentences: Sequence[int]) -> int:
    """The first sentence within the overlap, else the end of the passage before."""
    place = bisect_left(sentences, max(end - overlap, start + 1))
    if place < len(sentences) and sentences[place] < end:
        return sentences[place]
    return end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks at its ends."""
    part = text[start:end]
    return end - len(part.lstrip()), start + len(part.rstrip())
