"""Whole files as documents: one page, or one text.

A long text is cut into several documents while it streams, so that a book of any size fits.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from llmstages.data.readers.record import Record, Rejected, too_large
from llmstages.data.readers.streams import BUFFER, Meter, open_file

UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_page(path: Path, max_bytes: int, meter: Meter | None = None) -> Record | Rejected:
    """The page in a file."""
    try:
        with open_file(path, meter) as stream:
            body = stream.read(max_bytes + 1)
    except (OSError, EOFError) as error:
        return Rejected(path.name, f"{type(error).__name__}: {error}", url=f"file:{path.name}")
    return _whole_file(path, body, "text/html", max_bytes)


def _whole_file(path: Path, body: bytes, media: str, max_bytes: int) -> Record | Rejected:
    """The document of a file that is not cut."""
    url = f"file:{path.name}"
    if len(body) > max_bytes:
        return too_large(path.name, "a file", max_bytes, url)
    if not body.strip():
        return Rejected(path.name, "the file is empty", "empty", url)
    return Record(path.name, url, body, media)


def read_text(
    path: Path, block: int, max_bytes: int, meter: Meter | None = None
) -> Iterator[Record | Rejected]:
    """The text in a file; if longer than two blocks, cut into several documents.

    Of a damaged file the whole lines before the damage are kept.

    Args:
        path: the file.
        block: cut at the first blank line, or else the first line end, after so many bytes;
            0 leaves every text whole.
        max_bytes: a longer document is rejected.
        meter: moved while the file is read.
    """
    text = _Text(path, block, max_bytes)
    try:
        with open_file(path, meter) as stream:
            yield from text.parts(stream)
    except (OSError, EOFError) as error:
        yield from text.whole_lines()
        yield Rejected(
            f"{path.name}:{text.number + 1}",
            f"unreadable from here: {type(error).__name__}: {error}",
            url=f"file:{path.name}",
        )


class _Text:
    """One long text on its way through a buffer."""

    def __init__(self, path: Path, block: int, max_bytes: int) -> None:
        self.path = path
        self.block = block
        self.max_bytes = max_bytes
        self.number = 0
        self._buffer = bytearray()

    def parts(self, stream: io.BufferedReader) -> Iterator[Record | Rejected]:
        """The documents in order. Together they hold every byte."""
        self._stream = stream
        is_long = bool(self.block) and self._has(2 * self.block + 1)
        # A line end of UTF-16 is not one byte, so such a text is not cut.
        if not is_long or self._buffer[:2] in UTF16:
            self._has(self.max_bytes + 1)
            yield _whole_file(self.path, bytes(self._buffer), "text/plain", self.max_bytes)
            return
        while self._has(1):
            end = self._cut()
            if end > self.max_bytes:
                # The lines before the one that is too long are a document.
                end = self._buffer.rfind(b"\n", 0, self.block) + 1
                if end:
                    yield self._part(end)
                else:
                    yield self._long_line()
                    self._skip_line()
                continue
            # Too little would be left for a document of its own.
            if not self._has(end + self.block // 10):
                end = len(self._buffer)
            yield self._part(end)

    def _cut(self) -> int:
        """Where the document at the start of the buffer ends; over max_bytes if too long."""
        self._has(2 * self.block)
        blank_line = self._buffer.find(b"\n\n", self.block, 2 * self.block)
        if blank_line != -1:
            return blank_line + 2
        return self._line_end()

    def _long_line(self) -> Rejected:
        self.number += 1
        position = f"{self.path.name}:{self.number}"
        return too_large(position, "text without a line end", self.max_bytes, self._url())

    def whole_lines(self) -> Iterator[Record]:
        """What was read and not yielded yet, up to the last line end."""
        end = self._buffer[: self.max_bytes].rfind(b"\n") + 1
        if self._buffer[:end].strip():
            yield self._part(end)

    def _part(self, end: int) -> Record:
        self.number += 1
        body = bytes(self._buffer[:end])
        del self._buffer[:end]
        return Record(f"{self.path.name}:{self.number}", self._url(), body, "text/plain")

    def _url(self) -> str:
        return f"file:{self.path.name}#{self.number}"

    def _has(self, size: int) -> bool:
        """Fill the buffer to a size; False if the file has less. Raises what reading raises."""
        while len(self._buffer) < size:
            chunk = self._stream.read1(BUFFER)
            if not chunk:
                break
            self._buffer += chunk
        return len(self._buffer) >= size

    def _line_end(self) -> int:
        """After the first line end beyond the block, or the end of the file.

        It is at most one over max_bytes.
        """
        searched = self.block
        while True:
            line_end = self._buffer.find(b"\n", searched)
            if line_end != -1:
                return min(line_end, self.max_bytes) + 1
            searched = max(searched, len(self._buffer))
            if searched > self.max_bytes:
                return self.max_bytes + 1
            if not self._has(searched + 1):
                return len(self._buffer)

    def _skip_line(self) -> None:
        line_end = self._buffer.find(b"\n", self.max_bytes)
        if line_end != -1:
            del self._buffer[: line_end + 1]
            return
        self._buffer.clear()
        while True:
            line = self._stream.readline(1 << 20)
            if not line or line.endswith(b"\n"):
                return
