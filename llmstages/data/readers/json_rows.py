"""Rows of JSON: one a line, a list of them, or an object that holds a list.

Lines are read as bytes, one at a time: one bad byte costs one row, not the file (datasets' JSON loader gives up the
whole file, research: data_tokenizer.md section 5, "bad inputs"). Lists are parsed item by item while they stream.
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

from llmstages.data.readers.record import Rejected, too_large
from llmstages.data.readers.streams import Meter, open_file

WHOLE = 50_000_000  # bytes of one JSON object, which is parsed at once and takes some six times its size in memory
BOM = b"\xef\xbb\xbf"
CHUNK = 1 << 20  # characters
BETWEEN = re.compile(r"[\s,]*")
Row = tuple[int, Any]  # number and value; the value may be a Bad, whose position rows() fills in


def read_lines(path: Path, most: int, meter: Meter) -> Iterator[Row]:
    """Rows of JSON lines; a line of more than ``most`` bytes is passed over unread."""
    with open_file(path, meter) as stream:
        yield from _lines(stream, most)


def _lines(stream: IO[bytes], most: int) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(most + 1)
            long = len(line) > most
            while long and line and not line.endswith(b"\n"):
                line = stream.readline(CHUNK)
        except EOFError as error:  # a damaged gzip member; the stream goes on with the next one
            yield number, Rejected("", f"unreadable from here: {error}")
            continue
        if long:
            yield number, too_large("", "a line", most)
        elif not line:
            return
        elif not line.isspace():
            yield number, _parse(line.removeprefix(BOM) if number == 1 else line)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return Rejected("", f"not JSON: {error}", "format")


def read_json(path: Path, most: int, meter: Meter) -> Iterator[Row]:
    """A list of rows, an object holding one list of rows, or JSON lines under the wrong name. An object is read at once."""
    with open_file(path, meter) as stream:
        if stream.peek(1).removeprefix(BOM).lstrip()[:1] == b"[":
            yield from _items(stream, most)
            return
        lines = _lines(stream, most)
        first = next(lines, None)
        if first is None:
            return
        if isinstance(first[1], dict):
            second = next(lines, None)
            yield from _of_object(first[1]) if second is None else chain([first, second], lines)
            return
    meter.at = 0
    with open_file(path, meter) as stream:
        text = stream.read(WHOLE + 1)
    if len(text) > WHOLE:
        yield (
            1,
            too_large(
                "",
                "one JSON object (JSON lines have no such limit: write one object a line to a .jsonl file)",
                WHOLE,
            ),
        )
        return
    value = _parse(text.removeprefix(BOM))
    if not isinstance(value, Rejected):
        yield from _of_object(value)
        return
    parsed = list(_lines(io.BytesIO(text), most))
    yield from parsed if any(isinstance(row, dict) for _, row in parsed) else [(1, value)]


def _of_object(value: Any) -> Iterator[Row]:
    if isinstance(value, dict):
        lists = [
            item
            for item in value.values()
            if isinstance(item, list) and item and isinstance(item[0], dict)
        ]
        value = (
            lists[0]
            if len(lists) == 1 and "messages" not in value and "conversations" not in value
            else [value]
        )
    yield from enumerate(value if isinstance(value, list) else [value], 1)


def _items(stream: IO[bytes], most: int) -> Iterator[Row]:
    """The items of a list. After a damaged one reading goes on at the next line that starts an object like the first did."""
    listed = _List(stream, most)
    number = 0
    while listed.another():
        number += 1
        value = listed.item()
        if isinstance(value, Rejected) and not listed.skip_item():
            value = Rejected(
                "", f"{value.reason}; the rest of the list is lost", value.rule, limit=value.limit
            )
            yield number, value
            return
        yield number, value
    if listed.why:
        yield number + 1, Rejected("", listed.why)


class _List:
    """A JSON list on its way through a buffer."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most
        self._text = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._buffer, self._at, self._ended = "", 0, False
        self._damage: Exception | None = None
        self._decode = json.JSONDecoder().raw_decode
        self._start = ""  # what precedes an item: a line end and the indent of the first one
        self.why = ""  # why the list has no other item, when it should
        while not self._buffer and self._more():
            self._buffer = self._buffer.lstrip().removeprefix("\ufeff").lstrip()
        self._at = 1

    def _more(self) -> bool:
        """Read on; the part before the place is forgotten."""
        size, parts = max(CHUNK, len(self._buffer) - self._at), [self._buffer[self._at :]]
        if self._damage:
            raise self._damage
        try:
            while size > 0 and (part := self._stream.read1(size)):
                parts.append(self._text.decode(part))
                size -= len(part)
        except (OSError, EOFError) as error:
            self._damage = error  # raised when all before it is used up
            if len(parts) == 1:
                raise
        self._buffer, self._at, self._ended = "".join(parts), 0, len(parts) == 1
        return not self._ended

    def another(self) -> bool:
        """Go to the next item."""
        while True:
            at = BETWEEN.match(self._buffer, self._at).end()
            if not self._start and at < len(self._buffer):
                before = self._buffer[self._at : at]
                self._start = before[before.rfind("\n") :] + "{" if "\n" in before else "-"
            self._at = at
            if at < len(self._buffer):
                break
            if not self._more():
                self.why = "the list is cut off: it has no ]"
                return False
        return self._buffer[at] != "]"

    def item(self) -> Any:
        """The item here, or a Bad."""
        while True:
            try:
                value, self._at = self._decode(self._buffer, self._at)
                return value
            except RecursionError:
                return Rejected("", "not JSON: nested too deeply", "format")
            except json.JSONDecodeError as error:
                partly = error.pos > len(self._buffer) - 16 or error.msg.startswith(
                    "Unterminated string"
                )
                if len(self._buffer) - self._at > self._most and partly:
                    return too_large("", "an item", self._most)
                if self._ended or not partly or not self._more():
                    return Rejected("", f"not JSON: {error.msg}", "format")

    def skip_item(self) -> bool:
        """Go to the next line that starts an item; False when there is none to be found."""
        if self._start == "-":  # not one item a line: what is nested in an item looks like an item
            return False
        self._at += 1
        while (found := self._buffer.find(self._start, self._at)) == -1:
            self._at = max(self._at, len(self._buffer) - len(self._start))
            if not self._more():
                return False
        self._at = found
        return True
