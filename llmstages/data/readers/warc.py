"""WARC files, record by record, whatever happened to them.

warcio parses the headers; finding the records is done here, because its ArchiveIterator stops at the first damage and
says nothing about a file that was cut off. A gzipped file is walked member by member: a damaged member gives what was
readable before the damage, and reading goes on at the next member. Within plain text, reading goes on at the next line
that starts a record. A whole file in one gzip member (gzip instead of ``warcio recompress``) is read like plain text.
Everything streams: of a record larger than allowed only the start is held, the rest is passed over.
"""

from __future__ import annotations

import dataclasses as dc
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmstages.data.readers.feed import Feed
from llmstages.data.readers.record import MAX_BYTES, Record, Rejected
from llmstages.data.readers.response import Stored, document
from llmstages.data.readers.streams import GZIP, Damage, Meter, Source, inflate, open_plain, unzstd

HEADER = 1 << 20  # bytes; a longer line of a record header is damage
VERSIONS = ["WARC/1.1", "WARC/1.0", "WARC/0.17", "WARC/0.18"]
LINE = re.compile(rb"WARC/[01]\.")
START = re.compile(rb"\n(WARC/[01]\.[0-9]{1,2}\r?\n)")
INSIDE = re.compile(rb"\n(WARC/[01]\.[0-9]{1,2}\r?\n[A-Za-z-]{1,60}:)")  # more certain than START
END = re.compile(rb"[\r\n\0 ]*(\Z|WARC/[01]\.)")
BLANK = b"\r\n\0 "
CHECK = re.compile("incorrect (data|length) check")
KEPT = ("response", "resource", "conversion")
WRONG = "{} record is cut off, or its Content-Length is wrong"


def read_warc(
    path: Path | str, max_bytes: int = MAX_BYTES, meter: Meter | None = None
) -> Iterator[Record | Rejected]:
    """Pages of a WARC file (.warc, also .gz and .zst) in order, and a Bad for each record that is damaged or no page.

    Reads ``response`` (2xx), ``resource`` and ``conversion`` records; request, metadata, revisit and warcinfo records
    are bookkeeping and are passed over. Record.id is ``file name:number``, the number counting all records from 1.
    """
    path = Path(path)
    number = 0
    for found in _records(
        path, 2 * max_bytes, meter or Meter()
    ):  # as stored: some servers send chunks of a few bytes
        if isinstance(found, Rejected):
            yield found
            continue
        number += 1
        if found.kind in KEPT:
            page = document(found, f"{path.name}:{number}", max_bytes)
            if page is not None:
                yield page


def _records(path: Path, most: int, meter: Meter) -> Iterator[Rejected | Stored]:
    if path.stat().st_size == 0:
        yield Rejected(path.name, "the file is empty")
        return
    with Source(path, meter) as source:
        start = source.at(0, 5)
        if start[:3] == GZIP or path.suffix.lower() == ".gz" and start != b"WARC/":
            yield from _in_members(path.name, source, most)
            return
    meter.at = 0
    with open_plain(path, meter) as stored:
        feed = Feed.of_pieces(unzstd(stored)) if path.suffix.lower() == ".zst" else Feed(stored)
        yield from _parse(feed, path.name, most)
        if feed.damage:
            yield Rejected(path.name, str(feed.damage))


def _in_members(name: str, source: Source, most: int) -> Iterator[Rejected | Stored]:
    start = 0
    while start < source.size:
        place = f"{name}, byte {start}"
        block = source.at(start, 512)
        if block[:1] == b"\0":  # padding some writers leave between members
            start += len(block) - len(block.lstrip(b"\0"))
            continue
        if block[:3] != GZIP:
            following = source.find_member(start + 1, _starts_record)
            yield Rejected(
                place, f"{following - start} bytes that are no gzip member; skipped to the next one"
            )
            start = following
            continue
        member = _Member(source, start)
        feed = Feed.of_pieces(member.pieces())
        told = False
        for found in _parse(feed, place, most):
            if isinstance(found, Rejected) and feed.damage and str(feed.damage) in found.reason:
                told, found = (
                    True,
                    dc.replace(found, reason=f"{found.reason}; {_going_on(source, start)}"),
                )
            yield found
        if feed.damage and not told:
            yield Rejected(place, f"{feed.damage}; {_going_on(source, start)}")
        start = source.find_member(start + 1, _starts_record) if feed.damage else member.end


class _Member:
    """One gzip member, and those after it that start no record: some writers spread one record over several."""

    def __init__(self, source: Source, start: int) -> None:
        self._source, self.end = source, start

    def pieces(self) -> Iterator[bytes | Exception]:
        """The content; a Damage ends it. Otherwise ``end`` is then where the next member starts."""
        while True:
            try:
                self.end = yield from inflate(self._source, self.end)
            except Damage as damage:
                yield damage
                return
            if self._source.at(self.end, 3) != GZIP or _starts_record(
                self._source.content(self.end)
            ):
                return


def _starts_record(content: bytes) -> bool:
    return content.startswith(b"WARC/")


def _going_on(source: Source, start: int) -> str:
    following = source.find_member(start + 1, _starts_record)
    return (
        f"going on at byte {following}"
        if following < source.size
        else f"{source.size - start} bytes to the end are lost"
    )


def _parse(feed: Feed, place: str, most: int) -> Iterator[Rejected | Stored]:
    """Records of a plain stream, each with up to ``most`` bytes of payload; a Bad where one is damaged."""
    from warcio.statusandheaders import StatusAndHeadersParser

    parser = StatusAndHeadersParser(VERSIONS)
    while line := feed.readline(HEADER):
        if not line.strip(BLANK):
            continue
        position = feed.position - len(line)
        where = f"{place} + {position}"
        if LINE.match(line):
            found = _record(feed, line, where, most, parser)
            if (
                position == 0
                and feed.damage
                and isinstance(found, Stored)
                and CHECK.search(str(feed.damage))
                and not feed.peek(256).strip(BLANK)
            ):
                found = _bad(
                    feed, where, f"{found.kind} record is damaged", found.url
                )  # it is alone in its member: who else?
            yield found
            continue
        feed.unread(line)
        feed.pass_over(START)
        yield Rejected(
            where,
            f"{feed.position - position} bytes that belong to no record (a wrong Content-Length, or damage)",
        )


def _record(feed: Feed, line: bytes, where: str, most: int, parser: Any) -> Rejected | Stored:
    """The record that starts with this line. When it is damaged, the stream then stands where the next one starts."""
    from warcio.statusandheaders import StatusAndHeadersParserException

    lines, size = [line], 0
    while lines[-1].strip() and size < HEADER:
        lines.append(feed.readline(HEADER))
        size += len(lines[-1])
    header = b"".join(lines)
    try:
        headers = parser.parse(io.BytesIO(header))
        length = int(headers.get_header("Content-Length") or -1)
    except (StatusAndHeadersParserException, EOFError, ValueError, AttributeError) as error:
        return _damaged(
            feed, header[5:], where, f"damaged record ({type(error).__name__}: {str(error)[:100]})"
        )
    kind, url = (
        headers.get_header("WARC-Type") or "",
        (headers.get_header("WARC-Target-URI") or "").strip(),
    )
    url = (url[1:-1] if url.startswith("<") and url.endswith(">") else url).replace(
        " ", "%20"
    )  # as wget 1.19 wrote them
    if length < 0 or not lines[-1] or lines[-1].strip():
        return _damaged(
            feed, header[5:], where, f"{kind or 'a'} record without a whole header", url
        )
    payload = feed.read(min(length, most))
    if len(payload) < min(length, most):
        return _damaged(feed, payload, where, WRONG.format(kind), url)
    inside = None
    if length > most:  # so large a record is believed only as far as no other one starts in it
        inside = INSIDE.search(payload)
        if not inside and not feed.pass_over(INSIDE, length - most, payload[-80:]):
            return _bad(feed, where, WRONG.format(kind), url)
    elif not END.match(ahead := feed.peek(256)):
        inside = INSIDE.search(payload + ahead)
    if inside:
        feed.unread(payload)
        feed.read(inside.start(1))
        return _bad(feed, where, WRONG.format(kind), url)
    return Stored(
        where, kind, url, headers.get_header("Content-Type") or "", payload, length > most
    )


def _damaged(feed: Feed, again: bytes, where: str, reason: str, url: str = "") -> Rejected:
    """Look for the next record within what was taken for this one, and after it."""
    feed.unread(again)
    feed.pass_over(START)
    return _bad(feed, where, reason, url)


def _bad(feed: Feed, where: str, reason: str, url: str) -> Rejected:
    return Rejected(where, f"{reason}: {feed.damage}" if feed.damage else reason, url=url)
