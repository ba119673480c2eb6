"""A stream of WARC records into which bytes can be put back.

What turned out to belong to the next record is read once more. This is never done by seeking,
because a compressed stream would have to be read again from its start.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO

from llmstages.data.readers.streams import BUFFER, ChunkStream, Damage

BLOCK = 1 << 18
OVERLAP = 80  # bytes; longer than what any pattern matches


class Feed:
    """Bytes with their position.

    Attributes:
        position: the number of bytes read so far.
        damage: why the stream ended too early, or None.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        # What was put back, and how much of it was read again.
        self._back = b""
        self._back_read = 0
        self.position = 0
        self.damage: Damage | None = None

    @classmethod
    def of_chunks(cls, chunks: Iterator[bytes | Exception]) -> Feed:
        """A feed that ends at a Damage among the chunks, and keeps it in ``damage``."""

        def undamaged() -> Iterator[bytes | Exception]:
            for chunk in chunks:
                if isinstance(chunk, Damage):
                    feed.damage = chunk
                    return
                yield chunk

        feed = cls(io.BufferedReader(ChunkStream(undamaged()), BUFFER))
        return feed

    def readline(self, limit: int) -> bytes:
        """The next line with its end, or ``limit`` bytes of it; b"" at the end."""
        line = b""
        if self._back_read < len(self._back):
            end = self._back.find(b"\n", self._back_read, self._back_read + limit) + 1
            if not end:
                end = self._back_read + limit
            line = self._back[self._back_read : end]
            self._back_read = min(end, len(self._back))
        if not line.endswith(b"\n") and len(line) < limit:
            line += self._stream.readline(limit - len(line))
        self.position += len(line)
        return line

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        block = self._back[self._back_read : self._back_read + size]
        self._back_read += len(block)
        if not block:
            # Usually nothing was put back; then the bytes are not copied.
            block = self._stream.read(size)
        elif len(block) < size:
            block += self._stream.read(size - len(block))
        self.position += len(block)
        return block

    def unread(self, block: bytes) -> None:
        """Put back what was read last."""
        self._back = block + self._back[self._back_read :]
        self._back_read = 0
        self.position -= len(block)

    def peek(self, size: int) -> bytes:
        """What read(size) would return."""
        block = self.read(size)
        self.unread(block)
        return block

    def skip_to(
        self, pattern: re.Pattern[bytes], size: int | None = None, before: bytes = b""
    ) -> bool:
        """Skip to where the first group of a pattern matches, or over ``size`` bytes without one.

        Args:
            pattern: what to look for.
            size: how many bytes to skip at most; None: to the end.
            before: the bytes just before, in which the match may start.

        Returns:
            Without size: whether the pattern matches. With size: whether so many bytes were
            skipped; False at a match and at the end of the stream.
        """
        window = before
        while size is None or size:
            block = self.read(BLOCK if size is None else min(BLOCK, size))
            if not block:
                return False
            window += block
            if size is not None:
                size -= len(block)
            match = pattern.search(window)
            if match:
                self.unread(window[match.start(1) :])
                return size is None
            window = window[-OVERLAP:]
        return True
