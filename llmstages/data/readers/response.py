"""From a WARC record to the page in it: HTTP headers off, chunks joined, compressed content expanded as far as allowed."""

from __future__ import annotations

import dataclasses as dc
import io
import re
import zlib
from typing import Any

from llmstages.data.readers.record import Record, Rejected, too_large

CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
HTML = ("text/html", "application/xhtml+xml")
HEADERS_END = re.compile(rb"\n\r?\n")
HEADERS = 1 << 20  # bytes; longer HTTP headers are damage
BINARY = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")


@dc.dataclass(frozen=True)
class Stored:
    """A whole WARC record. cut: the payload goes on, but it was too large to be held."""

    where: str
    kind: str
    url: str
    content_type: str
    payload: bytes
    cut: bool


def document(record: Stored, name: str, max_bytes: int) -> Record | Rejected | None:
    """The page in a record; a Bad that says why there is none; None for wget's notes about itself."""
    url = record.url
    if url.startswith("metadata:"):
        return None
    http = (
        record.content_type.lower().startswith("application/http")
        or record.kind == "response"
        and url.startswith(("http:", "https:"))
    )
    headers, payload = None, record.payload
    if http:
        end = HEADERS_END.search(payload[:HEADERS])
        if not end and len(payload) > HEADERS:
            return Rejected(name, f"HTTP headers without an end at {record.where}", "damaged", url)
        headers, payload = (
            _headers(payload[: end.end()] if end else payload),
            payload[end.end() :] if end else b"",
        )
    status = headers.get_statuscode() if headers else ""
    if status and not status.startswith("2"):
        return Rejected(name, f"HTTP status {status[:40]}", "status", url)
    declared = (headers.get_header("Content-Type") if headers else record.content_type) or ""
    media = declared.split(";")[0].strip().lower()
    known = media in HTML or media == "text/plain"
    if media and media != "application/octet-stream" and not known:
        return Rejected(name, f"media type {media[:100]}", "media", url)
    try:
        body = _decoded(headers, payload, max_bytes) if headers else payload
    except (zlib.error, ValueError, EOFError) as error:
        return Rejected(
            name,
            f"undecodable content at {record.where} ({type(error).__name__}: {error})",
            "damaged",
            url,
        )
    if not known:
        media = (
            "text/html" if re.match(rb"\s*<(!doctype|html)", body[:200], re.IGNORECASE) else media
        )
        if media != "text/html":
            return Rejected(name, f"media type {media or 'unknown'}", "media", url)
    if record.cut or len(body) > max_bytes:
        return too_large(name, "a page", max_bytes, url)
    charset = CHARSET.search(declared)
    return Record(
        name,
        url,
        body,
        "text/html" if media in HTML else "text/plain",
        charset.group(1) if charset else "",
    )


def _headers(head: bytes) -> Any:
    """HTTP headers. warcio parses them for http: URIs only; crawls store pages under other names as well."""
    from warcio.statusandheaders import StatusAndHeadersParser

    return StatusAndHeadersParser(["HTTP/"], verify=False).parse(io.BytesIO(head)) if head else None


def _decoded(headers: Any, payload: bytes, max_bytes: int) -> bytes:
    """The content without transfer and content encoding, at most one byte over max_bytes.

    Servers that announce chunks or compression and send neither are believed by content.
    """
    body = payload
    if (headers.get_header("Transfer-Encoding") or "").strip().lower() == "chunked":
        from warcio.bufferedreaders import ChunkedDataReader

        body = ChunkedDataReader(io.BytesIO(payload)).read()
    encoding = (headers.get_header("Content-Encoding") or "").strip().lower()
    if encoding and body:
        body = _expanded(encoding, body, max_bytes + 1)
    if not body and BINARY.search(payload[:1000]):
        raise ValueError("it expands to nothing")
    return body if body or not payload.strip() else payload


def _expanded(encoding: str, body: bytes, most: int) -> bytes:
    windows = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}.get(encoding, ())
    for window in windows:
        inflated = zlib.decompressobj(window)
        try:
            return inflated.decompress(body, most)
        except zlib.error:
            if window == 31 and body.startswith(b"\x1f\x8b\x08"):
                raise
    if (
        not windows and encoding != "identity" and BINARY.search(body[:1000])
    ):  # br, zstd: no decoder comes with Python
        raise ValueError(f"Content-Encoding {encoding[:40]} cannot be expanded here")
    return body
