"""WARC files, record by record, however they are damaged.

warcio parses the headers. Finding the records is done here, because its ArchiveIterator stops at
the first damage and does not report a file that was cut off. A gzipped file is read member by
member: a damaged member gives what was readable before the damage, and reading continues at the
next member. In plain text it continues at the next line that starts a record. A whole file in one
gzip member (made by gzip instead of ``warcio recompress``) is read like plain text. Everything
streams: of a record that is too large only the start is held, the rest is skipped.
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
from llmstages.data.readers.streams import (
    GZIP,
    Damage,
    Meter,
    Source,
    decompress_zstd,
    inflate,
    open_plain,
)

HEADER = 1 << 20  # bytes; a longer record header is damage
VERSIONS = ["WARC/1.1", "WARC/1.0", "WARC/0.17", "WARC/0.18"]
VERSION_LINE = re.compile(rb"WARC/[01]\.")
RECORD_START = re.compile(rb"\n(WARC/[01]\.[0-9]{1,2}\r?\n)")
# More certain than RECORD_START, because a header follows: for the search inside a payload.
RECORD_INSIDE = re.compile(rb"\n(WARC/[01]\.[0-9]{1,2}\r?\n[A-Za-z-]{1,60}:)")
RECORD_END = re.compile(rb"[\r\n\0 ]*(\Z|WARC/[01]\.)")
BLANK = b"\r\n\0 "
WRONG_CHECKSUM = re.compile("incorrect (data|length) check")
KINDS = ("response", "resource", "conversion")


def read_warc(
    path: Path | str, max_bytes: int = MAX_BYTES, meter: Meter | None = None
) -> Iterator[Record | Rejected]:
    """The pages of a WARC file in order, and a Rejected for each record without a usable page.

    Reads ``response`` (status 2xx), ``resource`` and ``conversion`` records. The others (request,
    metadata, revisit, warcinfo) are bookkeeping and are skipped. The id of a page is ``file
    name:number``, where the number counts all records from 1.

    Args:
        path: a .warc file, also .gz and .zst.
        max_bytes: a larger page is rejected.
        meter: moved while the file is read.
    """
    path = Path(path)
    number = 0
    # Twice the bytes, because these are stored bytes: some servers send chunks of a few bytes.
    for record in _records(path, 2 * max_bytes, meter or Meter()):
        if isinstance(record, Rejected):
            yield record
            continue
        number += 1
        if record.kind not in KINDS:
            continue
        page = document(record, f"{path.name}:{number}", max_bytes)
        if page is not None:
            yield page


def _records(path: Path, max_payload: int, meter: Meter) -> Iterator[Rejected | Stored]:
    """All records of a file."""
    if path.stat().st_size == 0:
        yield Rejected(path.name, "the file is empty")
        return
    suffix = path.suffix.lower()
    with Source(path, meter) as source:
        start = source.at(0, 5)
        # Some files are named .gz and are plain text.
        is_damaged_gzip = suffix == ".gz" and start != b"WARC/"
        if start[:3] == GZIP or is_damaged_gzip:
            yield from _from_members(path.name, source, max_payload)
            return
    meter.position = 0
    with open_plain(path, meter) as stored:
        feed = Feed.of_chunks(decompress_zstd(stored)) if suffix == ".zst" else Feed(stored)
        yield from _from_text(feed, path.name, max_payload)
        if feed.damage:
            yield Rejected(path.name, str(feed.damage))


def _from_members(name: str, source: Source, max_payload: int) -> Iterator[Rejected | Stored]:
    """All records of a gzipped file, member by member."""
    start = 0
    while start < source.size:
        place = f"{name}, byte {start}"
        block = source.at(start, 512)
        if block[:1] == b"\0":
            # Some writers leave a padding of zeros between members.
            start += len(block) - len(block.lstrip(b"\0"))
            continue
        if block[:3] != GZIP:
            next_start = source.find_member(start + 1, _starts_record)
            reason = (
                f"{next_start - start} bytes that are not a gzip member; skipped to the next one"
            )
            yield Rejected(place, reason)
            start = next_start
            continue
        member = _Member(source, start)
        feed = Feed.of_chunks(member.chunks())
        yield from _from_member(feed, source, start, place, max_payload)
        if feed.damage:
            start = source.find_member(start + 1, _starts_record)
        else:
            start = member.end


def _from_member(
    feed: Feed, source: Source, start: int, place: str, max_payload: int
) -> Iterator[Rejected | Stored]:
    """The records of a member, and its damage exactly once."""
    is_reported = False
    for record in _from_text(feed, place, max_payload):
        if isinstance(record, Rejected) and feed.damage and str(feed.damage) in record.reason:
            is_reported = True
            reason = f"{record.reason}; {_consequence(source, start)}"
            yield dc.replace(record, reason=reason)
        else:
            yield record
    if feed.damage and not is_reported:
        yield Rejected(place, f"{feed.damage}; {_consequence(source, start)}")


class _Member:
    """One gzip member, and those after it that start no record.

    Some writers spread one record over several members. ``end`` is where the next member starts,
    once chunks() is used up without a Damage.
    """

    def __init__(self, source: Source, start: int) -> None:
        self._source = source
        self.end = start

    def chunks(self) -> Iterator[bytes | Exception]:
        """The content; a Damage ends it."""
        while True:
            try:
                self.end = yield from inflate(self._source, self.end)
            except Damage as damage:
                yield damage
                return
            is_member = self._source.at(self.end, 3) == GZIP
            if not is_member or _starts_record(self._source.content(self.end)):
                return


def _starts_record(content: bytes) -> bool:
    return content.startswith(b"WARC/")


def _consequence(source: Source, start: int) -> str:
    """What follows from the damage of the member at ``start``."""
    next_start = source.find_member(start + 1, _starts_record)
    if next_start < source.size:
        return f"reading continues at byte {next_start}"
    return f"{source.size - start} bytes to the end are lost"


def _from_text(feed: Feed, place: str, max_payload: int) -> Iterator[Rejected | Stored]:
    """The records of a plain stream, each with up to ``max_payload`` bytes of its payload."""
    from warcio.statusandheaders import StatusAndHeadersParser

    parser = StatusAndHeadersParser(VERSIONS)
    while line := feed.readline(HEADER):
        if not line.strip(BLANK):
            continue
        position = feed.position - len(line)
        where = f"{place} + {position}"
        if not VERSION_LINE.match(line):
            feed.unread(line)
            feed.skip_to(RECORD_START)
            size = feed.position - position
            reason = f"{size} bytes that belong to no record (a wrong Content-Length, or damage)"
            yield Rejected(where, reason)
            continue
        record = _record(feed, line, where, max_payload, parser)
        if isinstance(record, Stored) and position == 0 and _is_checksum_wrong(feed):
            # The record is alone in its member, so the damage is in it.
            record = _rejected(feed, where, f"{record.kind} record is damaged", record.url)
        yield record


def _is_checksum_wrong(feed: Feed) -> bool:
    """Whether a member ends here with a checksum that does not fit its content."""
    if not feed.damage or not WRONG_CHECKSUM.search(str(feed.damage)):
        return False
    return not feed.peek(256).strip(BLANK)


def _record(
    feed: Feed, line: bytes, where: str, max_payload: int, parser: Any
) -> Rejected | Stored:
    """The record that starts with a line.

    If it is damaged, the feed then stands where the next record starts.
    """
    from warcio.statusandheaders import StatusAndHeadersParserException

    header, is_complete = _read_header(feed, line)
    # What follows the version line may hold the next record.
    rest = header[5:]
    try:
        headers = parser.parse(io.BytesIO(header))
        length = int(headers.get_header("Content-Length") or -1)
    except (StatusAndHeadersParserException, EOFError, ValueError, AttributeError) as error:
        reason = f"damaged record ({type(error).__name__}: {str(error)[:100]})"
        return _search_next(feed, rest, where, reason)
    kind = headers.get_header("WARC-Type") or ""
    url = _target(headers)
    if length < 0 or not is_complete:
        reason = f"{kind or 'a'} record without a whole header"
        return _search_next(feed, rest, where, reason, url)

    wrong_length = f"{kind} record is cut off, or its Content-Length is wrong"
    payload = feed.read(min(length, max_payload))
    if len(payload) < min(length, max_payload):
        return _search_next(feed, payload, where, wrong_length, url)
    other_record = None
    if length > max_payload:
        # So large a record is believed only as far as no other record starts in it.
        other_record = RECORD_INSIDE.search(payload)
        unread_size = length - max_payload
        if not other_record and not feed.skip_to(RECORD_INSIDE, unread_size, payload[-80:]):
            return _rejected(feed, where, wrong_length, url)
    else:
        ahead = feed.peek(256)
        if not RECORD_END.match(ahead):
            other_record = RECORD_INSIDE.search(payload + ahead)
    if other_record:
        feed.unread(payload)
        feed.read(other_record.start(1))
        return _rejected(feed, where, wrong_length, url)
    content_type = headers.get_header("Content-Type") or ""
    truncated = (headers.get_header("WARC-Truncated") or "").strip()
    is_longer = length > max_payload
    return Stored(where, kind, url, content_type, payload, is_longer, truncated)


def _read_header(feed: Feed, line: bytes) -> tuple[bytes, bool]:
    """(the header that starts with a line, whether a blank line ends it)."""
    lines = [line]
    size = 0
    while line.strip() and size < HEADER:
        line = feed.readline(HEADER)
        lines.append(line)
        size += len(line)
    return b"".join(lines), bool(line) and not line.strip()


def _target(headers: Any) -> str:
    """The address in the headers of a record."""
    url = (headers.get_header("WARC-Target-URI") or "").strip()
    # wget 1.19 writes brackets around addresses, and spaces in them.
    if url.startswith("<") and url.endswith(">"):
        url = url[1:-1]
    return url.replace(" ", "%20")


def _search_next(feed: Feed, again: bytes, where: str, reason: str, url: str = "") -> Rejected:
    """Go to the next record, which may start in what was taken for this one."""
    feed.unread(again)
    feed.skip_to(RECORD_START)
    return _rejected(feed, where, reason, url)


def _rejected(feed: Feed, where: str, reason: str, url: str) -> Rejected:
    """A record that cannot be used, with the damage of the file if that is the cause."""
    if feed.damage:
        reason = f"{reason}: {feed.damage}"
    return Rejected(where, reason, url=url)
