"""What every reader yields, and how large one document may be."""

from __future__ import annotations

import dataclasses as dc
import re

MAX_BYTES = (
    10_000_000  # one document; a page of this size is a data dump, and parsing it takes minutes
)
SURROGATES = re.compile("[\ud800-\udfff]")


@dc.dataclass(frozen=True)
class Record:
    """A page or a text as it was stored.

    media: "text/html" or "text/plain". charset: as the server declared it, or "". replaced: characters that no text may
    hold (lone surrogates, bytes that are not UTF-8) and that are U+FFFD here.
    """

    id: str
    url: str
    body: bytes
    media: str
    charset: str = ""
    replaced: int = 0


@dc.dataclass(frozen=True)
class Rejected:
    """What could not be used. position: file and line, record or byte.

    rule: damaged, status, media, empty, null_text, too_large or format.
    """

    position: str
    reason: str
    rule: str = "damaged"
    url: str = ""
    limit: str = ""

    def as_dropped(self, excerpt: str = "") -> dict[str, str]:
        """A row of a ``dropped/`` table (see kinds.py)."""
        return {
            "id": clean(self.position),
            "url": clean(self.url),
            "rule": self.rule,
            "value": clean(self.reason),
            "limit": self.limit,
            "excerpt": excerpt,
        }


def too_large(position: str, what: str, limit: int, url: str = "") -> Rejected:
    """A document of more than ``limit`` bytes; the rest of it was never held in memory."""
    return Rejected(
        position, f"{what} of more than {limit} bytes", "too_large", url, f"<= {limit} bytes"
    )


def clean(text: str) -> str:
    """Text that Arrow and tokenizers accept: lone surrogates become U+FFFD, NUL goes."""
    return scrub(text)[0]


def scrub(text: str) -> tuple[str, int]:
    """The same, and how many surrogates were replaced. Readers decode what is not UTF-8 to surrogates, so it counts too."""
    text = text.replace("\0", "")
    if text.isascii():  # known without looking; the pattern alone would halve the speed of reading
        return text, 0
    try:
        text.encode()
    except UnicodeEncodeError:
        return SURROGATES.subn("\ufffd", text)
    return text, 0
