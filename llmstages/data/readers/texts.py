"""Whole files as documents: one page, or one text that is cut into several while it streams, so that a book of any size fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

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
    return _one(path, body, "text/html", max_bytes)


def _one(path: Path, body: bytes, media: str, max_bytes: int) -> Record | Rejected:
    url = f"file:{path.name}"
    if len(body) > max_bytes:
        return too_large(path.name, "a file", max_bytes, url)
    return (
        Record(path.name, url, body, media)
        if body.strip()
        else Rejected(path.name, "the file is empty", "empty", url)
    )


def read_text(
    path: Path, block: int, max_bytes: int, meter: Meter | None = None
) -> Iterator[Record | Rejected]:
    """The text in a file; if longer than two blocks, cut at the first blank line (or line end) after each ``block`` bytes.

    block: bytes, 0 leaves every text whole. Of a damaged file the whole lines before the damage are kept.
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
        self.path, self.block, self.max_bytes = path, block, max_bytes
        self.number, self._buffer = 0, bytearray()

    def parts(self, stream: IO[bytes]) -> Iterator[Record | Rejected]:
        """The documents, in order; nothing lies between them."""
        self._stream = stream
        if (
            not self.block or not self._has(2 * self.block + 1) or self._buffer[:2] in UTF16
        ):  # UTF-16: line ends are not one byte
            self._has(self.max_bytes + 1)
            yield _one(self.path, bytes(self._buffer), "text/plain", self.max_bytes)
            return
        block = self.block
        while self._has(1):
            self._has(2 * block)
            near = self._buffer.find(b"\n\n", block, 2 * block)
            end = near + 2 if near != -1 else self._line_end()
            if end > self.max_bytes:
                end = (
                    self._buffer.rfind(b"\n", 0, block) + 1
                )  # the lines before the one that is too long
                if end:
                    yield self._part(end)
                    continue
                self.number += 1
                yield too_large(
                    f"{self.path.name}:{self.number}",
                    "text without a line end",
                    self.max_bytes,
                    self._url(),
                )
                self._skip_line()
                continue
            if not self._has(end + block // 10):  # too little is left for a part of its own
                end = len(self._buffer)
            yield self._part(end)

    def whole_lines(self) -> Iterator[Record]:
        """What was read and not yet given, up to the last line end."""
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
        """Fill the buffer to this size; False when the file has less."""
        while len(self._buffer) < size and (
            part := self._stream.read1(BUFFER)
        ):  # raises when it has nothing more to give
            self._buffer += part
        return len(self._buffer) >= size

    def _line_end(self) -> int:
        """After the first line end that lies beyond the block (or the end of the file), at most one over max_bytes."""
        searched = self.block
        while (found := self._buffer.find(b"\n", searched)) == -1:
            searched = max(searched, len(self._buffer))
            if searched > self.max_bytes:
                return self.max_bytes + 1
            if not self._has(searched + 1):
                return len(self._buffer)
        return min(found, self.max_bytes) + 1

    def _skip_line(self) -> None:
        found = self._buffer.find(b"\n", self.max_bytes)
        if found != -1:
            del self._buffer[: found + 1]
            return
        self._buffer.clear()
        while (line := self._stream.readline(1 << 20)) and not line.endswith(b"\n"):
            pass
