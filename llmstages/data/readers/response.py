"""From a WARC record to the page in it.

HTTP headers are taken off, chunks are joined, and compressed content is expanded up to the limit.
"""

from __future__ import annotations

import dataclasses as dc
import io
import re
import zlib
from typing import Any

from llmstages.data.readers.record import Record, Rejected, too_large

CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
HTML = ("text/html", "application/xhtml+xml")
HTML_START = re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE)
HEADERS_END = re.compile(rb"\n\r?\n")
HEADERS = 1 << 20  # bytes; longer HTTP headers are damage
BINARY = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")
GZIP = b"\x1f\x8b\x08"
CHUNK = re.compile(rb"\s*[0-9a-fA-F]+[ \t;\r]*[^\n]*\n")
LAST_CHUNK = re.compile(rb"(?:^|\n)0+[ \t]*(?:;[^\n]*)?\r?\n")
# Window bits of zlib by Content-Encoding. Some servers send deflate without its header.
WINDOWS = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}


@dc.dataclass(frozen=True)
class Stored:
    """A whole WARC record.

    Attributes:
        where: its place, for messages.
        kind: WARC-Type.
        url: WARC-Target-URI.
        content_type: Content-Type of the record, not of the page.
        payload: what follows the WARC headers.
        cut: the payload is longer, but was too large to be held.
        truncated: WARC-Truncated, why the crawler stored only a part; "" if it did not say so.
    """

    where: str
    kind: str
    url: str
    content_type: str
    payload: bytes
    cut: bool
    truncated: str = ""


def document(record: Stored, name: str, max_bytes: int) -> Record | Rejected | None:
    """The page in a record, or why it has none; None for wget's notes about itself.

    name: the id of the page.
    """
    url = record.url
    if url.startswith("metadata:"):
        return None
    head, payload = _without_headers(record)
    if len(head) > HEADERS:
        return Rejected(name, f"HTTP headers without an end at {record.where}", "damaged", url)
    headers = _parsed_headers(head)
    if headers:
        status = headers.get_statuscode()
        if status and not status.startswith("2"):
            return Rejected(name, f"HTTP status {status[:40]}", "status", url)
        declared = headers.get_header("Content-Type") or ""
    else:
        declared = record.content_type or ""

    media = declared.split(";")[0].strip().lower()
    is_text = media in HTML or media == "text/plain"
    if media and media != "application/octet-stream" and not is_text:
        return Rejected(name, f"media type {media[:100]}", "media", url)
    try:
        body, cut = _decoded(headers, payload, max_bytes) if headers else (payload, "")
    except (zlib.error, ValueError, EOFError) as error:
        reason = f"undecodable content at {record.where} ({type(error).__name__}: {error})"
        return Rejected(name, reason, "damaged", url)
    if not is_text:
        # The server did not say what it sent, but a page can be recognized.
        if not HTML_START.match(body[:200]):
            return Rejected(name, f"media type {media or 'unknown'}", "media", url)
        media = "text/html"
    if record.cut or len(body) > max_bytes:
        return too_large(name, "a page", max_bytes, url)
    if media in HTML:
        media = "text/html"
    charset = CHARSET.search(declared)
    if record.truncated:
        cut = f"WARC-Truncated: {record.truncated}"
    return Record(name, url, body, media, charset.group(1) if charset else "", cut=cut)


def _without_headers(record: Stored) -> tuple[bytes, bytes]:
    """(HTTP headers, what follows them); b"" for a record that has none."""
    payload = record.payload
    if not _is_http(record):
        return b"", payload
    end = HEADERS_END.search(payload[:HEADERS])
    head_size = end.end() if end else len(payload)
    return payload[:head_size], payload[head_size:]


def _is_http(record: Stored) -> bool:
    """Whether the payload begins with HTTP headers."""
    if record.content_type.lower().startswith("application/http"):
        return True
    return record.kind == "response" and record.url.startswith(("http:", "https:"))


def _parsed_headers(head: bytes) -> Any:
    """HTTP headers, or None for b"".

    warcio itself parses them only for http: addresses, but crawls store pages under others too.
    """
    from warcio.statusandheaders import StatusAndHeadersParser

    if not head:
        return None
    return StatusAndHeadersParser(["HTTP/"], verify=False).parse(io.BytesIO(head))


def _decoded(headers: Any, payload: bytes, max_bytes: int) -> tuple[bytes, str]:
    """(the content without transfer and content encoding, why it is not whole, or "").

    The content is at most one byte over max_bytes. Some servers announce chunks or compression and
    send neither; there the content decides. Raises ValueError, EOFError or zlib.error if the
    content cannot be decoded.
    """
    body, cut = payload, ""
    if (headers.get_header("Transfer-Encoding") or "").strip().lower() == "chunked":
        from warcio.bufferedreaders import ChunkedDataReader

        body = ChunkedDataReader(io.BytesIO(payload)).read()
        if CHUNK.match(payload) and not LAST_CHUNK.search(payload):
            cut = "the last chunk is missing"
    else:
        cut = _missing_bytes(headers, payload)
    encoding = (headers.get_header("Content-Encoding") or "").strip().lower()
    if encoding and body:
        body, is_whole = _expanded(encoding, body, max_bytes + 1)
        if not is_whole:
            cut = cut or f"its {encoding[:40]} stream has no end"
    if body:
        return body, cut
    if BINARY.search(payload[:1000]):
        raise ValueError("it expands to nothing")
    return (payload if payload.strip() else body), cut


def _missing_bytes(headers: Any, payload: bytes) -> str:
    """Why the payload is shorter than its own Content-Length; "" if it is not.

    Crawlers that unpack what they store keep the header, so an encoding is not compared.
    """
    length = (headers.get_header("Content-Length") or "").strip()
    if headers.get_header("Content-Encoding") and not payload.startswith(GZIP):
        return ""
    if not length.isdecimal() or len(payload) >= int(length):
        return ""
    return f"{len(payload)} of {length} bytes"


def _expanded(encoding: str, body: bytes, limit: int) -> tuple[bytes, bool]:
    """(the content without its compression, at most ``limit`` bytes; whether its end was reached).

    The content is unchanged if it has no compression. A gzip stream may have several members.
    """
    windows = WINDOWS.get(encoding, ())
    for window in windows:
        try:
            return _inflated(body, window, limit)
        except zlib.error:
            if window == 31 and body.startswith(GZIP):
                raise
    # Python has no decoder for br and zstd.
    if not windows and encoding != "identity" and BINARY.search(body[:1000]):
        raise ValueError(f"Content-Encoding {encoding[:40]} cannot be expanded here")
    return body, True


def _inflated(body: bytes, window: int, limit: int) -> tuple[bytes, bool]:
    """As _expanded, for one kind of zlib stream."""
    parts: list[bytes] = []
    room = limit
    while True:
        inflater = zlib.decompressobj(window)
        parts.append(inflater.decompress(body, room))
        room -= len(parts[-1])
        if room <= 0:
            return b"".join(parts), True
        if not inflater.eof:
            return b"".join(parts), False
        body = inflater.unused_data
        # What else follows a member is padding.
        if not body.startswith(GZIP):
            return b"".join(parts), True
