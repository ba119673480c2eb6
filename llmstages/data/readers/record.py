"""What every reader yields, and how large one document may be."""

from __future__ import annotations

import dataclasses as dc
import re

# Bytes of one document. A page of this size is a data dump, and parsing it takes minutes.
MAX_BYTES = 10_000_000
SURROGATES = re.compile("[\ud800-\udfff]")


@dc.dataclass(frozen=True)
class Record:
    """A page or a text as it was stored.

    Attributes:
        id: where it was read, or its own id.
        url: its address; ``file:NAME`` if it has none.
        body: the stored bytes.
        media: "text/html" or "text/plain".
        charset: as the server declared it, or "".
        replaced: characters that no text may hold (lone surrogates, bytes that are not UTF-8) and
            that are U+FFFD in body.
        cut: why the body is not whole, or "".
    """

    id: str
    url: str
    body: bytes
    media: str
    charset: str = ""
    replaced: int = 0
    cut: str = ""


@dc.dataclass(frozen=True)
class Rejected:
    """An input that cannot be used.

    Attributes:
        position: the file, with the line, record or byte.
        reason: what is wrong.
        rule: damaged, status, media, empty, null_text, too_large or format.
        url: the address of the document, or "".
        limit: the limit that it exceeds, or "".
    """

    position: str
    reason: str
    rule: str = "damaged"
    url: str = ""
    limit: str = ""

    def as_dropped(self, excerpt: str = "") -> dict[str, str]:
        """The row of a ``dropped/`` table (tables.DROPPED_COLUMNS)."""
        return {
            "id": clean(self.position),
            "url": clean(self.url),
            "rule": self.rule,
            "value": clean(self.reason),
            "limit": self.limit,
            "excerpt": excerpt,
        }


def too_large(position: str, what: str, limit: int, url: str = "") -> Rejected:
    """A document of more than ``limit`` bytes, of which the rest was never held in memory."""
    reason = f"{what} of more than {limit} bytes"
    return Rejected(position, reason, "too_large", url, f"<= {limit} bytes")


def clean(text: str) -> str:
    """Text that Arrow and tokenizers accept: NUL is removed, a lone surrogate becomes U+FFFD."""
    return scrub(text)[0]


def scrub(text: str) -> tuple[str, int]:
    """(clean text, number of surrogates that were replaced).

    Readers decode bytes that are not UTF-8 to surrogates, so these count too.
    """
    text = text.replace("\0", "")
    # Two fast tests first: the pattern alone would halve the speed of reading.
    if text.isascii():
        return text, 0
    try:
        text.encode()
    except UnicodeEncodeError:
        return SURROGATES.subn("\ufffd", text)
    return text, 0
