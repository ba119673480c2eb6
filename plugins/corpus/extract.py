"""From the bytes of a page to its main text.

trafilatura does the work, with ``deduplicate=False``: its own deduplication keeps a cache across documents, so its
result would depend on the order and on the process (of five equal pages three came through). Comments are left out by
default as in FineWeb (and F1 on trafilatura's own evaluation pages rises by 0.005). The time limit counts CPU time, so
that a busy machine drops nothing that an idle one keeps.
"""

from __future__ import annotations

import codecs
import dataclasses as dc
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llmstages.readers import clean

META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Encodings of pages that declare none or lie (WHATWG Encoding, legacy); without DOS code pages, which decode anything.
GUESSES = ("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr")


@dc.dataclass(frozen=True)
class Settings:
    """How to extract; the fields of the stage's Config that a worker needs."""

    comments: bool = False
    tables: bool = True
    favour_precision: bool = False
    fast: bool = False
    seconds: float = 10.0
    max_bytes: int = 10_000_000
    max_characters: int = 1_000_000
    max_replaced: float = 0.01


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


def can_limit_time() -> bool:
    """Signals reach the main thread only."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    if not can_limit_time() or seconds <= 0:
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
        if encoding and encoding != "utf-8":  # a few stray bytes do not unsay it; browsers replace them too
            return body.decode(encoding, "replace")
    lenient = body.decode("utf-8", "replace")
    replaced = lenient.count("\ufffd")
    if sum(character > "\x7f" for character in lenient) > 2 * replaced:
        return lenient  # mostly valid sequences: damaged UTF-8
    from charset_normalizer import from_bytes

    found = {match.encoding: match for match in from_bytes(body[:20_000], cp_isolation=list(GUESSES))
             if match.chaos < 0.05 and match.coherence > 0}
    if not found:
        return lenient
    best = max(found.values(), key=lambda match: (match.coherence - match.chaos + 0.1 * (match.encoding == "cp1252"), match.encoding))
    return body.decode(best.encoding, "replace")


def _codec(name: str) -> str:
    """Python's name of a declared charset, "" for none it knows. Latin-1 means cp1252, as in browsers (WHATWG Encoding)."""
    try:
        found = codecs.lookup(name.strip()).name if name else ""
    except LookupError:
        return ""
    return "cp1252" if found in ("iso8859-1", "ascii") else found


def extract(body: bytes, media: str, charset: str, settings: Settings) -> Extracted:
    """The text of one document. Whatever the page does, this returns: a page that breaks the extractor breaks a rule."""
    if len(body) > settings.max_bytes:
        return Extracted("", "too_large", len(body), f"<= {settings.max_bytes} bytes")
    source = ""
    try:
        with _cpu_limit(settings.seconds):
            source = decode(body, charset, media == "text/html")
            text = _main_text(source, settings) if media == "text/html" else source
    except _OutOfTime:
        return Extracted("", "timeout", settings.seconds, f"<= {settings.seconds:g} s of CPU time", source[:200])
    except (Exception, RecursionError) as error:  # any failure of a parser belongs to this page alone, and is recorded
        return Extracted("", "error", f"{type(error).__name__}: {error}"[:200], "extraction without error", source[:200])
    text = clean(text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if not text:
        return Extracted("", "empty", 0, "some text", clean(source[:200]))
    if len(text) > settings.max_characters:
        return Extracted("", "too_long", len(text), f"<= {settings.max_characters} characters", text[:200])
    replaced = text.count("\ufffd") / len(text)
    if replaced > settings.max_replaced:
        return Extracted("", "encoding", replaced, f"<= {settings.max_replaced} replaced characters", text[:200])
    return Extracted(text)


def _main_text(source: str, settings: Settings) -> str:
    import trafilatura

    return trafilatura.extract(
        source, include_comments=settings.comments, include_tables=settings.tables, fast=settings.fast,
        favor_precision=settings.favour_precision, deduplicate=False) or ""


Job = tuple[bytes, str, str]  # body, media, declared charset
Extract = Callable[[Job], Extracted]
