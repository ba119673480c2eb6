"""WARC files, record by record, whatever happened to them.

warcio parses the records; finding them is done here, because its ArchiveIterator stops at the first damage and says
nothing about a file that was cut off. A gzipped file is walked member by member: a damaged member gives what was
readable before the damage, and reading goes on at the next member. Within plain text, reading goes on at the next line
that starts a record. A whole file in one gzip member (gzip instead of ``warcio recompress``) is read like plain text.
"""

from __future__ import annotations

import io
import logging
import mmap
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from llmstages.readers.record import Bad, Record

BLOCK = 1 << 16
IN_MEMORY = 1 << 26          # a larger gzip member goes through a temporary file
GZIP = b"\x1f\x8b\x08"
START = re.compile(rb"(?:^|\n)(WARC/[01]\.)")
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
KEPT = ("response", "resource", "conversion")
HTML = ("text/html", "application/xhtml+xml")


def read_warc(path: Path | str) -> Iterator[Record | Bad]:
    """Pages of a WARC file (.warc, .warc.gz) in order, and a Bad for each record that is damaged or no page.

    Reads ``response`` (2xx), ``resource`` and ``conversion`` records; request, metadata, revisit and warcinfo records
    are bookkeeping and are passed over. Record.id is ``file name:number``, the number counting all records from 1.
    """
    path = Path(path)
    number = 0
    for place, found in _records(path):
        if isinstance(found, Bad):
            yield found
            continue
        number += 1
        record, payload = found
        if record.rec_type in KEPT:
            document = _document(f"{path.name}:{number}", place, record, payload)
            if document is not None:
                yield document


def _records(path: Path) -> Iterator[tuple[str, Bad | tuple[Any, bytes]]]:
    if path.stat().st_size == 0:
        yield path.name, Bad(path.name, "the file is empty")
        return
    with open(path, "rb") as file:
        if file.read(3) != GZIP:
            file.seek(0)
            yield from _parse(file, path.name)
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for offset, stream, error in _members(data):
                place = f"{path.name}, byte {offset}"
                with stream:
                    yield from _parse(stream, place)
                if error:
                    yield place, Bad(place, error)


def _members(data: mmap.mmap) -> Iterator[tuple[int, IO[bytes], str]]:
    """(offset, decompressed stream, error or "") for each gzip member, damaged ones included."""
    start, size = 0, len(data)
    while start < size:
        if data[start] == 0:  # padding some writers leave between members
            start += 1
            continue
        if data[start:start + 3] != GZIP:
            following = _next_member(data, start + 1)
            yield start, io.BytesIO(), f"{following - start} bytes that are no gzip member; skipped to the next one"
            start = following
            continue
        spool = tempfile.SpooledTemporaryFile(IN_MEMORY)
        end, error = _inflate(data, start, spool)
        while not error and data[end:end + 3] == GZIP and not _starts_record(data, end):
            end, error = _inflate(data, end, spool)  # some writers spread one record over several members
        if error:
            end = _next_member(data, start + 1)
            error += f"; {size - start} bytes to the end are lost" if end == size else f"; going on at byte {end}"
        spool.seek(0)
        yield start, spool, error
        start = end


def _inflate(data: mmap.mmap, start: int, spool: IO[bytes]) -> tuple[int, str]:
    """Decompress one member into ``spool``; returns where it ends and what was wrong."""
    inflate, position, step = zlib.decompressobj(31), start, BLOCK
    while not inflate.eof and position < len(data):
        before, chunk = inflate.copy(), data[position:position + step]
        try:
            rest = chunk
            while rest:
                spool.write(inflate.decompress(rest, IN_MEMORY))
                rest = inflate.unconsumed_tail
        except zlib.error as error:
            if step == 1:
                return position, f"damaged gzip member ({error})"
            inflate, step = before, 1 if step <= 64 else 64  # once more in small steps: keep all before the damage
            continue
        position += len(chunk)
    if not inflate.eof:
        return position, "the file is cut off in the middle of a gzip member"
    return position - len(inflate.unused_data), ""


def _next_member(data: mmap.mmap, start: int) -> int:
    """Where the next member that holds a WARC record starts; the end of the file when there is none."""
    while (start := data.find(GZIP, start)) != -1:
        if _starts_record(data, start):
            return start
        start += 1  # three bytes that look like a member by chance, or the rest of a record
    return len(data)


def _starts_record(data: mmap.mmap, start: int) -> bool:
    try:
        return zlib.decompressobj(31).decompress(data[start:start + 4096], 5) == b"WARC/"
    except zlib.error:
        return False


def _parse(stream: IO[bytes], place: str) -> Iterator[tuple[str, Bad | tuple[Any, bytes]]]:
    """Records of a plain stream: (record, payload bytes as stored), or a Bad where one is damaged."""
    from warcio.exceptions import ArchiveLoadFailed
    from warcio.recordloader import ArcWarcRecordLoader
    from warcio.statusandheaders import StatusAndHeadersParserException

    logging.getLogger("warcio.recordloader").setLevel(logging.ERROR)  # it warns of every space in a URI
    loader = ArcWarcRecordLoader(verify_http=False, arc2warc=False)
    while True:
        position = stream.tell()
        line = stream.readline()
        if not line:
            return
        if not line.strip(b"\r\n\0 "):
            continue
        where = f"{place} + {position}"
        if not START.match(line):
            skipped = _seek_record(stream, position) - position
            yield where, Bad(where, f"{skipped} bytes that belong to no record (a wrong Content-Length, or damage)")
            continue
        stream.seek(position)
        try:
            record = loader.parse_record_stream(stream, known_format="warc")
            payload = record.raw_stream.read()
            short = record.length is None or getattr(record.raw_stream, "limit", 0) > 0
        except (ArchiveLoadFailed, StatusAndHeadersParserException, EOFError, ValueError, AttributeError) as error:
            yield where, Bad(where, f"damaged record ({type(error).__name__}: {str(error)[:100]})")
            _seek_record(stream, position + 5)
            continue
        if short:
            url = record.rec_headers.get_header("WARC-Target-URI") or ""
            yield where, Bad(where, f"{record.rec_type} record is cut off, or its Content-Length is wrong", url=url)
            _seek_record(stream, position + 5)
            continue
        yield where, (record, payload)


def _seek_record(stream: IO[bytes], position: int) -> int:
    """Move the stream to the next line that starts a record (or the end) and return that position."""
    while True:
        stream.seek(position)
        block = stream.read(1 << 20)
        found = re.search(rb"\n(WARC/[01]\.)", block)
        if found:
            stream.seek(position + found.start(1))
            return position + found.start(1)
        if len(block) < 16:
            return stream.seek(0, io.SEEK_END)
        position += len(block) - 8  # a start may lie across two blocks


def _document(name: str, place: str, record: Any, payload: bytes) -> Record | Bad | None:
    """The page in a record; a Bad that says why there is none; None for wget's notes about itself."""
    url = record.rec_headers.get_header("WARC-Target-URI") or ""
    if url.startswith("metadata:"):
        return None
    headers, payload = _http(record, payload)
    status = headers.get_statuscode() if headers else ""
    if status and not status.startswith("2"):
        return Bad(name, f"HTTP status {status}", "status", url)
    declared = (headers.get_header("Content-Type") if headers else record.content_type) or ""
    media = declared.split(";")[0].strip().lower()
    try:
        body = _decoded(record, payload)
    except Exception as error:  # warcio's decoders raise many kinds; whichever it is, this one record is bad
        return Bad(name, f"undecodable content at {place} ({type(error).__name__}: {error})", "damaged", url)
    if not media or media == "application/octet-stream":
        media = "text/html" if re.match(rb"\s*<(!doctype|html)", body[:200], re.IGNORECASE) else media
    if media not in HTML and media != "text/plain":
        return Bad(name, f"media type {media or 'unknown'}", "media", url)
    charset = CHARSET.search(declared)
    return Record(name, url, body, "text/html" if media in HTML else "text/plain", charset.group(1) if charset else "")


def _http(record: Any, payload: bytes) -> tuple[Any, bytes]:
    """HTTP headers and the body. warcio parses them for http: URIs only; crawls store pages under other names as well."""
    if record.http_headers or not (record.content_type or "").lower().startswith("application/http"):
        return record.http_headers, payload
    from warcio.statusandheaders import StatusAndHeadersParser

    stream = io.BytesIO(payload)
    record.http_headers = StatusAndHeadersParser(["HTTP/"], verify=False).parse(stream)
    return record.http_headers, stream.read()


def _decoded(record: Any, payload: bytes) -> bytes:
    """The content without transfer and content encoding. Servers that announce chunks and send none are believed by content."""
    record.raw_stream = io.BytesIO(payload)
    body = record.content_stream().read()
    return body if body or not payload.strip() else payload
