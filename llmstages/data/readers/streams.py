"""Bytes of plain, gzip and zstd files in bounded memory, whatever they expand to and however they are damaged.

Python's gzip module gives up a file at its first bad byte, together with what that block held before it. Here a damaged
gzip member gives all that was readable, then ``Damage`` once, then reading goes on at the next member.
"""

from __future__ import annotations

import dataclasses as dc
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

GZIP = b"\x1f\x8b\x08"
BLOCK = (
    1 << 14
)  # compressed bytes taken at once: deflate expands at most 1032 times, so no piece is over 17 MB
BUFFER = 1 << 18


@dc.dataclass
class Meter:
    """How far reading is in the current file. at: stored (compressed) bytes; the readers move it, the stage shows it."""

    at: int = 0


class Damage(EOFError):
    """A compressed stream that breaks off. at: the byte after the last readable one."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


class Source:
    """A file read at any place without mapping it: mapped pages count as memory of the process."""

    def __init__(self, path: Path, meter: Meter | None = None) -> None:
        self._file, self.meter = open(path, "rb"), meter or Meter()
        self.size = path.stat().st_size

    def at(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from there."""
        self._file.seek(position)
        block = self._file.read(size)
        self.meter.at = max(self.meter.at, position + len(block))
        return block

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def find_member(
        self, position: int, fits: Callable[[bytes], bool] = lambda content: True
    ) -> int:
        """Where the next gzip member with such a start of content begins, from ``position`` on; the file's size if nowhere."""
        while block := self.at(position, 1 << 20):
            found = block.find(GZIP)
            while found != -1:
                content = self.content(position + found)
                if content and fits(content):
                    return position + found
                found = block.find(GZIP, found + 1)  # three bytes that look like a member by chance
            if len(block) < 1 << 20:
                break
            position += len(block) - len(GZIP) + 1
        return self.size

    def content(self, position: int) -> bytes:
        """The first bytes of content of the gzip member there; nothing when there is none."""
        try:
            return zlib.decompressobj(31).decompress(self.at(position, 4096), 64)
        except zlib.error:
            return b""


def inflate(source: Source, position: int) -> Iterator[bytes]:
    """The content of one gzip member in pieces; the generator returns where the member ends, or raises Damage."""
    inflated, step = zlib.decompressobj(31), BLOCK
    while not inflated.eof:
        block = source.at(position, step)
        if not block:
            raise Damage("the file is cut off in the middle of a gzip member", position)
        before = inflated.copy()
        try:
            piece = inflated.decompress(block)
        except zlib.error as error:
            if step == 1:
                raise Damage(f"damaged gzip member ({error})", position) from error
            inflated, step = (
                before,
                1 if step <= 64 else 64,
            )  # once more in small steps: keep all before the damage
            continue
        position += len(block)
        yield piece
    return position - len(inflated.unused_data)


def members(source: Source) -> Iterator[bytes | Damage]:
    """The content of all gzip members of a file; a Damage where some of it is missing."""
    position = 0
    while position < source.size:
        start = position
        try:
            position = yield from inflate(source, position)
        except Damage as damage:
            position = source.find_member(start + 1)
            if source.at(start, min(position - start, 1 << 20)).strip(
                b"\0"
            ):  # else it is only the padding that some writers leave
                going_on = (
                    f"going on at byte {position}" if position < source.size else "the rest is lost"
                )
                yield Damage(f"{damage} (byte {damage.at}); {going_on}", damage.at)


class Pieces(io.RawIOBase):
    """An iterator of bytes as a stream. An exception among them is raised where it stands; reading may go on after it."""

    def __init__(self, pieces: Iterator[bytes | Exception], source: Any = None) -> None:
        super().__init__()
        self._pieces, self._source, self._rest = pieces, source, memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As io.RawIOBase has it."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            if isinstance(piece, Exception):
                raise piece
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        """Close the file below."""
        if self._source:
            self._source.close()
        super().close()


class _Counted(io.FileIO):
    """A file that tells the meter how far it is."""

    def __init__(self, path: Path, meter: Meter) -> None:
        super().__init__(path, "rb")
        self._meter = meter

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self._meter.at += size
        return size


def open_plain(path: Path, meter: Meter) -> IO[bytes]:
    """The bytes of a file as they are stored."""
    return io.BufferedReader(_Counted(path, meter), BUFFER)


def open_file(path: Path, meter: Meter | None = None) -> IO[bytes]:
    """The bytes of a file, decompressed by its ending (.gz, .zst); reading a damaged one raises OSError or EOFError.

    After the EOFError of a damaged gzip member (Damage), reading goes on with the next member.
    """
    meter, ending = meter or Meter(), path.suffix.lower()
    if ending == ".gz":
        source = Source(path, meter)
        return io.BufferedReader(Pieces(members(source), source), BUFFER)
    stored = open_plain(path, meter)
    return io.BufferedReader(Pieces(unzstd(stored), stored), BUFFER) if ending == ".zst" else stored


def unzstd(stored: IO[bytes]) -> Iterator[bytes | Exception]:
    """The content of a zstd stream in pieces. pyarrow's error takes the piece at hand with it, so the pieces are small."""
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, "r"), "zstd") as stream:
        try:
            while piece := stream.read(BLOCK):
                yield piece
        except OSError as error:
            yield Damage(f"damaged zstd stream ({error})", 0)
