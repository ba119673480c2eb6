"""From the bytes of a page to clean text: decode, extract, hold against the limits.

The extractor is a plugin (``extractors/``). Whatever a page does, it costs only itself: the time limit counts CPU time, so
that a busy machine drops nothing that an idle one keeps, and the process an extractor runs in is ended when even that does
not stop it (see extraction_pool.py).
"""

from __future__ import annotations

import codecs
import dataclasses as dc
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmstages.data.readers import clean

META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
TAG = re.compile(r"<(/?)([a-zA-Z][\w-]*+)[^<>]*+>")  # possessive, so linear in any input
VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li td tr th dt dd option".split()
)  # or closed implicitly
# Encodings of pages that declare none or lie (WHATWG Encoding, legacy); without DOS code pages, which decode anything.
GUESSES = (
    "cp1250",
    "cp1251",
    "cp1252",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "koi8_r",
    "shift_jis",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
)


@dc.dataclass(frozen=True)
class Settings:
    """How to extract; the fields of the stage's Config that a worker needs."""

    seconds: float = 10.0
    max_bytes: int = 10_000_000
    max_characters: int = 1_000_000
    max_replaced: float = 0.01
    max_word: int = 100_000
    max_depth: int = 1000
    memory_mb: int = 2048


@dc.dataclass(frozen=True)
class Extracted:
    """The text, or the rule that the page broke. excerpt: the start of the source, for pages without text."""

    text: str
    rule: str = ""
    value: float | str = ""
    limit: str = ""
    excerpt: str = ""


class _OutOfTime(BaseException):
    """No Exception, because trafilatura catches those."""


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    if (
        threading.current_thread() is not threading.main_thread() or seconds <= 0
    ):  # signals reach the main thread only
        yield
        return

    def stop(*_: object) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def decode(body: bytes, declared: str = "", html: bool = True) -> str:
    """Bytes to text: byte order mark, UTF-8 if it is valid, the declared charset, a sure guess, UTF-8 with U+FFFD.

    Valid UTF-8 goes first because servers misdeclare it more often than another encoding looks like UTF-8 by chance.
    A guess must recognise a language, for some encoding always decodes random bytes to letters.
    """
    for mark, encoding in BOMS:
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    if b"\x1b$" not in body:  # ISO-2022 pages are valid UTF-8 too
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            pass
    meta = META.search(body[:4096]) if html else None
    for name in (declared, meta.group(1).decode("ascii", "ignore") if meta else ""):
        encoding = _codec(name)
        if (
            encoding and encoding != "utf-8"
        ):  # a few stray bytes do not unsay it; browsers replace them too
            return body.decode(encoding, "replace")
    lenient = body.decode("utf-8", "replace")
    replaced = lenient.count("\ufffd")
    if sum(character > "\x7f" for character in lenient) > 2 * replaced:
        return lenient  # mostly valid sequences: damaged UTF-8
    from charset_normalizer import from_bytes

    found = {
        match.encoding: match
        for match in from_bytes(body[:20_000], cp_isolation=list(GUESSES))
        if match.chaos < 0.05 and match.coherence > 0
    }
    if not found:
        return lenient
    best = max(
        found.values(),
        key=lambda match: (
            match.coherence - match.chaos + 0.1 * (match.encoding == "cp1252"),
            match.encoding,
        ),
    )
    return body.decode(best.encoding, "replace")


def _codec(name: str) -> str:
    """Python's name of a declared charset, "" for none it knows. Latin-1 means cp1252, as in browsers (WHATWG Encoding)."""
    try:
        found = codecs.lookup(name.strip()).name if name else ""
    except LookupError:
        return ""
    return "cp1252" if found in ("iso8859-1", "ascii") else found


def extract(
    body: bytes, media: str, charset: str, url: str, settings: Settings, extractor: Any
) -> Extracted:
    """The text of one document. Whatever the page does, this returns: a page that breaks the extractor breaks a rule.

    extractor: used where media is "text/html"; other texts are only decoded.
    """
    if len(body) > settings.max_bytes:
        return Extracted("", "too_large", len(body), f"<= {settings.max_bytes} bytes")
    source = ""
    try:
        with _cpu_limit(settings.seconds):
            source = decode(body, charset, media == "text/html")
            if media == "text/html":
                if (deep := depth(source, settings.max_depth)) > settings.max_depth:
                    return Extracted(
                        "",
                        "html_depth",
                        deep,
                        f"<= {settings.max_depth} elements inside each other",
                        clean(source[:200]),
                    )
                source_text = extractor.extract(source, url)
            else:
                source_text = source
    except _OutOfTime:
        return Extracted(
            "",
            "timeout",
            settings.seconds,
            f"<= {settings.seconds:g} s of CPU time",
            clean(source[:200]),
        )
    except MemoryError:
        return Extracted(
            "", "memory", settings.memory_mb, f"<= {settings.memory_mb} MB", clean(source[:200])
        )
    except (
        Exception,
        RecursionError,
    ) as error:  # any failure of a parser belongs to this page alone, and is recorded
        return Extracted(
            "",
            "error",
            f"{type(error).__name__}: {error}"[:200],
            "extraction without error",
            clean(source[:200]),
        )
    return held(
        clean(source_text.replace("\r\n", "\n").replace("\r", "\n")).strip(), source, settings
    )


def held(text: str, source: str, settings: Settings) -> Extracted:
    """A text held against the limits. source: what it came from, for the excerpt of a page without text."""
    if not text:
        return Extracted("", "empty", 0, "some text", clean(source[:200]))
    if len(text) > settings.max_characters:
        return Extracted(
            "", "too_long", len(text), f"<= {settings.max_characters} characters", text[:200]
        )
    if (
        len(text) > settings.max_word
        and (longest := max(map(len, text.split()))) > settings.max_word
    ):
        return Extracted(
            "",
            "longest_word",
            longest,
            f"<= {settings.max_word} characters without a blank",
            text[:200],
        )
    replaced = text.count("\ufffd") / len(text)
    if replaced > settings.max_replaced:
        return Extracted(
            "", "encoding", replaced, f"<= {settings.max_replaced} replaced characters", text[:200]
        )
    return Extracted(text)


def depth(source: str, limit: int) -> int:
    """How many elements stand inside each other at most; counted only where the page has enough tags to pass the limit."""
    if source.count("<") <= limit or _at_most(source) <= limit:
        return 0
    most = now = 0
    for found in TAG.finditer(source):
        closing, name = found.groups()
        if name.lower() not in VOID and not found.group().endswith("/>"):
            now = max(now - 1, 0) if closing else now + 1
            most = max(most, now)
    return most


def _at_most(source: str) -> int:
    """An upper bound of the depth, much faster: every tag that is not closed counts, also those that never are."""
    import numpy as np

    signs = np.frombuffer(source.encode("utf-8", "replace") + b"  ", np.uint8)
    follows = signs[np.flatnonzero(signs == 60) + 1]  # what comes after each <
    return int(np.cumsum(np.where(follows == 47, -1, (follows | 32) >= 97)).max(initial=0))
