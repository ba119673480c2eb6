"""From the bytes of a page to clean text: decode, extract, check against the limits.

The extractor is a plugin (``extractors/``). Whatever a page does, it costs only itself. The time
limit counts CPU time, so that a busy machine drops nothing that an idle one keeps, and the process
an extractor runs in is ended if even that does not stop it (see extraction_pool.py).
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
from llmstages.data.readers.encodings import web_codec

META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
TAG = re.compile(r"<(/?)([a-zA-Z][\w-]*+)[^<>]*+>")  # possessive, so linear in any input
# Elements without an end tag, and those that are often closed implicitly.
UNCLOSED = frozenset(
    "area base br col embed hr img input link meta param source track wbr "
    "p li td tr th dt dd option".split()
)
# Encodings of pages that declare none or a wrong one (WHATWG Encoding, legacy). DOS code pages are
# left out, since they decode anything.
GUESSES = [
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
GUESS_BYTES = 20_000
EXCERPT = 200
CPU_REMINDER = 0.1  # seconds between one signal of the time limit and the next


@dc.dataclass(frozen=True)
class Settings:
    """How to extract: the fields of the stage's Config that an extraction process needs."""

    seconds: float = 10.0
    max_bytes: int = 10_000_000
    max_characters: int = 1_000_000
    max_replaced: float = 0.01
    max_word: int = 100_000
    max_depth: int = 1000
    memory_mb: int = 2048


@dc.dataclass(frozen=True)
class Extracted:
    """The text, or the rule that the page broke.

    excerpt: the start of the source, for pages without text.
    """

    text: str
    rule: str = ""
    value: float | str = ""
    limit: str = ""
    excerpt: str = ""


def dropped(rule: str, value: float | str, limit: str, source: str = "") -> Extracted:
    """A page that broke a rule."""
    return Extracted("", rule, value, limit, source[:EXCERPT])


class _OutOfTime(BaseException):
    """Not an Exception, because trafilatura catches those."""


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    # Signals reach the main thread only.
    if threading.current_thread() is not threading.main_thread() or seconds <= 0:
        yield
        return
    fired = over = False

    def stop(*_: object) -> None:
        nonlocal fired
        fired = True
        if not over:
            raise _OutOfTime

    before = signal.signal(signal.SIGVTALRM, stop)
    # Python drops what is raised in a destructor or the callback of a weak reference, so the timer
    # goes on, and whoever got to the end without having heard it is late all the same.
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, CPU_REMINDER)
    try:
        try:
            yield
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    if fired:
        raise _OutOfTime


def decode(body: bytes, declared: str = "", html: bool = True) -> str:
    """Bytes to text, by the first of these that applies.

    A byte order mark; UTF-8 if it is valid; the declared charset; a certain guess; UTF-8 with
    U+FFFD. Valid UTF-8 is tried first because servers misdeclare it more often than another
    encoding looks like UTF-8 by chance. A guess must recognize a language, since some encoding
    always decodes random bytes to letters.

    Args:
        body: the bytes.
        declared: the charset of the response's headers, or "".
        html: whether a <meta> element may declare one.
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
    in_page = meta.group(1).decode("ascii", "ignore") if meta else ""
    for encoding in (web_codec(declared), web_codec(in_page, in_page=True)):
        # A few stray bytes do not make declared UTF-8 wrong; browsers replace them too.
        if encoding and encoding != "utf-8":
            return body.decode(encoding, "replace")
    lenient = body.decode("utf-8", "replace")
    replaced = lenient.count("\ufffd")
    not_ascii = sum(character > "\x7f" for character in lenient)
    # Mostly valid sequences are damaged UTF-8.
    encoding = "" if not_ascii > 2 * replaced else _guess(body)
    return body.decode(encoding, "replace") if encoding else lenient


def _guess(body: bytes) -> str:
    """The encoding in which the bytes are text of some language, or ""."""
    from charset_normalizer import from_bytes

    matches = {}
    for match in from_bytes(body[:GUESS_BYTES], cp_isolation=GUESSES):
        if match.chaos < 0.05 and match.coherence > 0:
            matches[match.encoding] = match
    if not matches:
        return ""

    def quality(match: Any) -> tuple[float, str]:
        bonus = 0.1 * (match.encoding == "cp1252")  # by far the most frequent one
        return match.coherence - match.chaos + bonus, match.encoding

    return max(matches.values(), key=quality).encoding


def extract(
    body: bytes, media: str, charset: str, url: str, settings: Settings, extractor: Any
) -> Extracted:
    """The text of one document, or the rule that it broke; never raises for what a page does.

    extractor: used if media is "text/html"; other texts are only decoded.
    """
    if len(body) > settings.max_bytes:
        return dropped("too_large", len(body), f"<= {settings.max_bytes} bytes")
    source = ""
    try:
        with _cpu_limit(settings.seconds):
            source = text = decode(body, charset, media == "text/html")
            if media == "text/html":
                levels = depth(source, settings.max_depth)
                if levels > settings.max_depth:
                    limit = f"<= {settings.max_depth} elements inside each other"
                    return dropped("html_depth", levels, limit, clean(source[:EXCERPT]))
                text = extractor.extract(source, url)
    except _OutOfTime:
        limit = f"<= {settings.seconds:g} s of CPU time"
        return dropped("timeout", settings.seconds, limit, clean(source[:EXCERPT]))
    except MemoryError:
        limit = f"<= {settings.memory_mb} MB"
        return dropped("memory", settings.memory_mb, limit, clean(source[:EXCERPT]))
    # Any failure of a parser belongs to this page alone, and is recorded.
    except Exception as error:
        message = f"{type(error).__name__}: {error}"[:EXCERPT]
        return dropped("error", message, "extraction without error", clean(source[:EXCERPT]))
    text = clean(text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    return within_limits(text, source, settings)


def within_limits(text: str, source: str, settings: Settings) -> Extracted:
    """The text if it keeps the limits, or the rule that it broke.

    source: what it was extracted from, for the excerpt of a page without text.
    """
    if not text:
        return dropped("empty", 0, "some text", clean(source[:EXCERPT]))
    if len(text) > settings.max_characters:
        return dropped("too_long", len(text), f"<= {settings.max_characters} characters", text)
    if len(text) > settings.max_word:
        longest = max(map(len, text.split()))
        if longest > settings.max_word:
            limit = f"<= {settings.max_word} characters without a blank"
            return dropped("longest_word", longest, limit, text)
    replaced = text.count("\ufffd") / len(text)
    if replaced > settings.max_replaced:
        limit = f"<= {settings.max_replaced} replaced characters"
        return dropped("encoding", replaced, limit, text)
    return Extracted(text)


def depth(source: str, limit: int) -> int:
    """How many elements stand inside each other at most.

    Counted only if the page has enough tags to pass the limit; else 0.
    """
    if source.count("<") <= limit or _max_depth_at_most(source) <= limit:
        return 0
    most = current = 0
    for tag in TAG.finditer(source):
        closing, name = tag.groups()
        if name.lower() in UNCLOSED or tag.group().endswith("/>"):
            continue
        current = max(current - 1, 0) if closing else current + 1
        most = max(most, current)
    return most


def _max_depth_at_most(source: str) -> int:
    """An upper bound of the depth, much faster: every tag counts until it is closed."""
    import numpy as np

    characters = np.frombuffer(source.encode("utf-8", "replace") + b"  ", np.uint8)
    after_bracket = characters[np.flatnonzero(characters == ord("<")) + 1]
    opens = (after_bracket | 32) >= ord("a")
    steps = np.where(after_bracket == ord("/"), -1, opens)
    return int(np.cumsum(steps).max(initial=0))
