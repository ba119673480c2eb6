"""Rows of JSON: one per line, a list of them, or an object that holds a list.

Lines are read as bytes, one at a time, so that one bad byte costs one row. (The JSON loader of
datasets gives up the whole file.) Lists are parsed item by item while they stream.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from llmstages.data.readers.containers import rows_in
from llmstages.data.readers.encodings import open_utf8
from llmstages.data.readers.record import Rejected, too_large
from llmstages.data.readers.streams import Meter

# Bytes of one JSON object. It is parsed at once, which takes some six times its size in memory.
WHOLE = 50_000_000
BOM = b"\xef\xbb\xbf"
CHUNK = 1 << 20  # characters
BETWEEN = re.compile(r"[\s,]*")

# The number of a row and its value. The value may be a Rejected, whose position rows() fills in.
Row = tuple[int, Any]


def read_lines(path: Path, max_row: int, meter: Meter) -> Iterator[Row]:
    """Rows of JSON lines. A line of more than ``max_row`` bytes is skipped without parsing."""
    with open_utf8(path, meter) as stream:
        yield from _lines(stream, max_row)


def _lines(stream: IO[bytes], max_row: int) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(max_row + 1)
            is_long = len(line) > max_row
            while is_long and line and not line.endswith(b"\n"):
                line = stream.readline(CHUNK)
        except EOFError as error:
            # A damaged gzip member; the stream continues with the next one.
            yield number, Rejected("", f"unreadable from here: {error}")
            continue
        if is_long:
            yield number, too_large("", "a line", max_row)
        elif not line:
            return
        elif not line.isspace():
            yield number, _parsed(line.removeprefix(BOM) if number == 1 else line)


def _parsed(text: bytes) -> Any:
    """The value of a JSON text, or a Rejected."""
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return Rejected("", f"not JSON: {error}", "format")


def read_json(path: Path, max_row: int, meter: Meter) -> Iterator[Row]:
    """Rows of a .json file: a list of rows, an object with one list of rows, or JSON lines.

    An object is read at once, the others stream. Many files with JSON lines are named .json.
    """
    with open_utf8(path, meter) as stream:
        if stream.peek(1).removeprefix(BOM).lstrip()[:1] == b"[":
            yield from _items(stream, max_row)
            return
        lines = _lines(stream, max_row)
        first = next(lines, None)
        if first is None:
            return
        if isinstance(first[1], dict):
            second = next(lines, None)
            if second is None:
                yield from _rows_of(first[1])
            else:
                yield from chain([first, second], lines)
            return
    # The first line is not a row, so the file may be one object over many lines.
    meter.position = 0
    with open_utf8(path, meter) as stream:
        text = stream.read(WHOLE + 1)
    if len(text) > WHOLE:
        what = (
            "one JSON object (JSON lines have no such limit: write one object per line to "
            "a .jsonl file)"
        )
        yield 1, too_large("", what, WHOLE)
        return
    value = _parsed(text.removeprefix(BOM))
    if not isinstance(value, Rejected):
        yield from _rows_of(value)
        return
    parsed_lines = list(_lines(io.BytesIO(text), max_row))
    if any(isinstance(row, dict) for _, row in parsed_lines):
        yield from parsed_lines
    else:
        yield 1, value


def _rows_of(value: Any) -> Iterator[Row]:
    """The rows of a whole JSON value: a list, the only list of objects in it, or itself."""
    rows = rows_in(value) if isinstance(value, dict) else None
    if rows is not None:
        value = rows
    elif isinstance(value, dict):
        lists = []
        for item in value.values():
            if isinstance(item, list) and item and isinstance(item[0], dict):
                lists.append(item)
        # The list of a dialogue holds its turns.
        is_dialogue = "messages" in value or "conversations" in value
        if len(lists) == 1 and not is_dialogue:
            value = lists[0]
    yield from enumerate(value if isinstance(value, list) else [value], 1)


def _items(stream: io.BufferedReader, max_row: int) -> Iterator[Row]:
    """The items of a list.

    After a damaged item, reading continues at the next line that starts like the first item did.
    """
    items = _List(stream, max_row)
    number = 0
    while items.has_next():
        number += 1
        value = items.item()
        if isinstance(value, Rejected) and not items.skip_item():
            reason = f"{value.reason}; the rest of the list is lost"
            yield number, Rejected("", reason, value.rule, limit=value.limit)
            return
        yield number, value
    if items.problem:
        yield number + 1, Rejected("", items.problem)


class _List:
    """A JSON list on its way through a buffer.

    Attributes:
        problem: why the list has no other item although it should, or "".
    """

    def __init__(self, stream: io.BufferedReader, max_row: int) -> None:
        self._stream = stream
        self._max_row = max_row
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._decode_json = json.JSONDecoder().raw_decode
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._damage: Exception | None = None
        # How the line of an item starts: line end, indent and "{"; "-" if items share lines.
        self._item_start = ""
        self.problem = ""
        while not self._buffer and self._fill():
            self._buffer = self._buffer.lstrip().removeprefix("\ufeff").lstrip()
        # After the opening bracket.
        self._at = 1

    def _fill(self) -> bool:
        """Read more and forget what lies before the place; False at the end of the stream."""
        size = max(CHUNK, len(self._buffer) - self._at)
        parts = [self._buffer[self._at :]]
        if self._damage:
            raise self._damage
        try:
            while size > 0:
                chunk = self._stream.read1(size)
                if not chunk:
                    break
                parts.append(self._decoder.decode(chunk))
                size -= len(chunk)
        except (OSError, EOFError) as error:
            # Raised only when everything before it is used up.
            self._damage = error
            if len(parts) == 1:
                raise
        self._buffer = "".join(parts)
        self._at = 0
        self._ended = len(parts) == 1
        return not self._ended

    def has_next(self) -> bool:
        """Go to the next item; False at the end of the list."""
        while True:
            between = BETWEEN.match(self._buffer, self._at)
            assert between, "the pattern matches also nothing"
            at = between.end()
            if not self._item_start and at < len(self._buffer):
                before = self._buffer[self._at : at]
                is_own_line = "\n" in before
                self._item_start = before[before.rfind("\n") :] + "{" if is_own_line else "-"
            self._at = at
            if at < len(self._buffer):
                return self._buffer[at] != "]"
            if not self._fill():
                self.problem = "the list is cut off: it has no ]"
                return False

    def item(self) -> Any:
        """The item here, or a Rejected."""
        while True:
            try:
                value, self._at = self._decode_json(self._buffer, self._at)
            except RecursionError:
                return Rejected("", "not JSON: nested too deeply", "format")
            except json.JSONDecodeError as error:
                is_near_end = error.pos > len(self._buffer) - 16
                is_partial = is_near_end or error.msg.startswith("Unterminated string")
                if is_partial and len(self._buffer) - self._at > self._max_row:
                    return too_large("", "an item", self._max_row)
                if self._ended or not is_partial or not self._fill():
                    return Rejected("", f"not JSON: {error.msg}", "format")
            else:
                return value

    def skip_item(self) -> bool:
        """Go to the next line that starts an item; False if there is none to be found."""
        if self._item_start == "-":
            # What is nested in an item would look like an item.
            return False
        self._at += 1
        while True:
            start = self._buffer.find(self._item_start, self._at)
            if start != -1:
                self._at = start
                return True
            self._at = max(self._at, len(self._buffer) - len(self._item_start))
            if not self._fill():
                return False
