"""A stream of WARC records that can be put back: what turned out to belong to the next record is read once more.

Never by seeking: a compressed stream would have to be read again from its start.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO

from llmstages.data.readers.streams import BUFFER, Damage, Pieces

BLOCK = 1 << 18
OVERLAP = 80  # bytes; longer than what any pattern matches


class Feed:
    """Bytes with their position. damage: why the stream ended before its time, or None."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._back, self._from = stream, b"", 0
        self.position = 0
        self.damage: Damage | None = None

    @classmethod
    def of_pieces(cls, pieces: Iterator[bytes | Exception]) -> Feed:
        """A feed that takes a Damage among the pieces for its end."""

        def quiet() -> Iterator[bytes | Exception]:
            for piece in pieces:
                if isinstance(piece, Damage):
                    feed.damage = piece
                    return
                yield piece

        feed = cls(io.BufferedReader(Pieces(quiet()), BUFFER))
        return feed

    def readline(self, most: int) -> bytes:
        """The next line with its end, or ``most`` bytes of it; nothing at the end."""
        line = b""
        if self._from < len(self._back):
            end = self._back.find(b"\n", self._from, self._from + most) + 1 or self._from + most
            line, self._from = self._back[self._from : end], min(end, len(self._back))
        if not line.endswith(b"\n") and len(line) < most:
            line += self._stream.readline(most - len(line))
        self.position += len(line)
        return line

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer at the end only."""
        part = self._back[self._from : self._from + size]
        self._from += len(part)
        if len(part) < size:
            part = part + self._stream.read(size - len(part)) if part else self._stream.read(size)
        self.position += len(part)
        return part

    def unread(self, part: bytes) -> None:
        """Put back what was read last."""
        self._back, self._from = part + self._back[self._from :], 0
        self.position -= len(part)

    def peek(self, size: int) -> bytes:
        """What read(size) would give."""
        part = self.read(size)
        self.unread(part)
        return part

    def pass_over(
        self, pattern: re.Pattern[bytes], size: int | None = None, before: bytes = b""
    ) -> bool:
        """Go to where the first group of the pattern matches. With size: at most so far.

        before: the bytes just before, in which the match may start. True when it stands where it was to go: at the match,
        or with size past so many bytes without one. False at the end, or with size at a match.
        """
        window = before
        while size is None or size:
            block = self.read(BLOCK if size is None else min(BLOCK, size))
            if not block:
                return False
            window += block
            size = None if size is None else size - len(block)
            if found := pattern.search(window):
                self.unread(window[found.start(1) :])
                return size is None
            window = window[-OVERLAP:]
        return True
