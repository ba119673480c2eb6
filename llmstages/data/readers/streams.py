"""Bytes of plain, gzip and zstd files in bounded memory, whatever they expand to.

Python's gzip module gives up a file at its first bad byte, together with what that block held
before it. Here a damaged gzip member gives everything that was readable, then ``Damage`` once, and
reading continues at the next member.
"""

from __future__ import annotations

import dataclasses as dc
import io
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

GZIP = b"\x1f\x8b\x08"
# Compressed bytes taken at once. Deflate expands at most 1032 times, so no chunk is over 17 MB.
BLOCK = 1 << 14
BUFFER = 1 << 18
SEARCH = 1 << 20  # bytes looked through at once for the next gzip member


@dc.dataclass
class Meter:
    """How far reading is in the current file.

    The readers move it, the stage shows it. position: stored (compressed) bytes.
    """

    position: int = 0


class Damage(EOFError):
    """A compressed stream that breaks off. position: the byte after the last readable one."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Source:
    """A file that is read at any place.

    It is not mapped, because mapped pages count as memory of the process.
    """

    def __init__(self, path: Path, meter: Meter | None = None) -> None:
        self._file = path.open("rb")
        self.meter = meter or Meter()
        self.size = path.stat().st_size

    def at(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from a position."""
        self._file.seek(position)
        block = self._file.read(size)
        self.meter.position = max(self.meter.position, position + len(block))
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
        """The position of the next gzip member; the size of the file if there is none.

        Args:
            position: where to begin.
            fits: whether a member with this beginning of its content is wanted.
        """
        while block := self.at(position, SEARCH):
            offset = block.find(GZIP)
            while offset != -1:
                # Three bytes may look like a member by chance; then it has no content.
                content = self.content(position + offset)
                if content and fits(content):
                    return position + offset
                offset = block.find(GZIP, offset + 1)
            if len(block) < SEARCH:
                break
            position += len(block) - len(GZIP) + 1
        return self.size

    def content(self, position: int) -> bytes:
        """The first bytes of content of the gzip member there; b"" if there is none."""
        try:
            return zlib.decompressobj(31).decompress(self.at(position, 4096), 64)
        except zlib.error:
            return b""


def inflate(source: Source, position: int) -> Generator[bytes, None, int]:
    """The content of one gzip member in chunks.

    The generator returns where the member ends, or raises Damage.
    """
    inflater = zlib.decompressobj(31)
    step = BLOCK
    while not inflater.eof:
        block = source.at(position, step)
        if not block:
            raise Damage("the file is cut off in the middle of a gzip member", position)
        before = inflater.copy()
        try:
            chunk = inflater.decompress(block)
        except zlib.error as error:
            if step == 1:
                raise Damage(f"damaged gzip member ({error})", position) from error
            # Read the block again in smaller steps, to keep everything before the damage.
            inflater = before
            step = 1 if step <= 64 else 64
            continue
        position += len(block)
        yield chunk
    return position - len(inflater.unused_data)


def read_members(source: Source) -> Iterator[bytes | Damage]:
    """The content of all gzip members of a file; a Damage where some of it is missing."""
    position = 0
    while position < source.size:
        start = position
        try:
            position = yield from inflate(source, position)
        except Damage as damage:
            position = source.find_member(start + 1)
            skipped = source.at(start, min(position - start, SEARCH))
            # Some writers leave a padding of zeros between members, which is no damage.
            if not skipped.strip(b"\0"):
                continue
            if position < source.size:
                consequence = f"reading continues at byte {position}"
            else:
                consequence = "the rest is lost"
            message = f"{damage} (byte {damage.position}); {consequence}"
            yield Damage(message, damage.position)


class ChunkStream(io.RawIOBase):
    """An iterator of bytes as a stream.

    An exception among the chunks is raised where it stands; reading may continue after it.
    """

    def __init__(self, chunks: Iterator[bytes | Exception], source: Any = None) -> None:
        """source: the file below, closed together with the stream."""
        super().__init__()
        self._chunks = chunks
        self._source = source
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what is at hand; see io.RawIOBase."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            if isinstance(chunk, Exception):
                raise chunk
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Close the file below."""
        if self._source:
            self._source.close()
        super().close()


class _MeteredFile(io.FileIO):
    """A file that moves a meter while it is read."""

    def __init__(self, path: Path, meter: Meter) -> None:
        super().__init__(path, "rb")
        self._meter = meter

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self._meter.position += size
        return size


def open_plain(path: Path, meter: Meter) -> io.BufferedReader:
    """The bytes of a file as they are stored."""
    return io.BufferedReader(_MeteredFile(path, meter), BUFFER)


def open_file(path: Path, meter: Meter | None = None) -> io.BufferedReader:
    """The bytes of a file, decompressed if its name ends in .gz or .zst.

    Reading a damaged file raises OSError or EOFError. After the EOFError of a damaged gzip member
    (Damage), reading continues with the next member.
    """
    meter = meter or Meter()
    suffix = path.suffix.lower()
    if suffix == ".gz":
        source = Source(path, meter)
        return io.BufferedReader(ChunkStream(read_members(source), source), BUFFER)
    stored = open_plain(path, meter)
    if suffix == ".zst":
        return io.BufferedReader(ChunkStream(decompress_zstd(stored), stored), BUFFER)
    return stored


def decompress_zstd(stored: IO[bytes]) -> Iterator[bytes | Exception]:
    """The content of a zstd stream in chunks; a Damage ends a damaged one."""
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, "r"), "zstd") as stream:
        try:
            # An error of pyarrow loses the chunk at hand, so the chunks are small.
            while chunk := stream.read(BLOCK):
                yield chunk
        except OSError as error:
            yield Damage(f"damaged zstd stream ({error})", 0)
