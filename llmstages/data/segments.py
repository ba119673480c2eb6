"""Documents as segments of flat arrays of ids, which may be memory-mapped.

A segment is (source, start, length): ten million of them cost some 200 MB of indices, and no token
is held twice. This module knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from llmstages.text.render import Rendered

CHUNK = 1 << 22  # tokens handled at once where a whole source is read


@dataclass(frozen=True, eq=False)
class Tokens:
    """A flat array of ids that segments point into.

    Attributes:
        ids: integers, one per token.
        supervised: for each id whether the loss sees it; None means all of them.
        bos: an id that begins each segment although it is not in ``ids``, also where a document
            is cut into several segments. None if ``ids`` has everything.
        end: an id that is the target behind the last token of each document, which so learns to
            end. It is never read, so it takes no place in a row. None: the end is no target.
    """

    ids: Any
    supervised: Any = None
    bos: int | None = None
    end: int | None = None


@dataclass(frozen=True, eq=False)
class Segments:
    """Documents, or parts of them, in order.

    Segment i is ``ids[start[i] : start[i] + length[i]]`` of ``sources[source[i]]``, and ``last[i]``
    says whether its document ends with it. The four arrays have one item per segment: int16, int64,
    int32 and bool.
    """

    sources: tuple[Tokens, ...]
    source: Any
    start: Any
    length: Any
    last: Any

    @staticmethod
    def cut(tokens: Tokens, starts: Any, lengths: Any, room: int) -> Segments:
        """Documents cut into segments of at most ``room`` ids, in order.

        No id is lost. An empty document stays one empty segment.
        """
        import numpy as np

        starts = np.asarray(starts, np.int64)
        lengths = np.asarray(lengths, np.int64)
        parts = np.maximum(-(-lengths // room), 1)
        ends = np.repeat(starts + lengths, parts)
        first_part = np.repeat(np.cumsum(parts) - parts, parts)
        part_number = np.arange(len(ends)) - first_part
        begins = part_number * room + np.repeat(starts, parts)
        source = np.zeros(len(ends), np.int16)
        length = np.minimum(ends - begins, room).astype(np.int32)
        return Segments(
            (tokens,), source, begins, length, part_number == np.repeat(parts, parts) - 1
        )

    @staticmethod
    def of(rows: Sequence[Rendered]) -> Segments:
        """One segment per rendered row. Their ids stay in memory as one array."""
        import numpy as np

        length = np.array([len(row.ids) for row in rows], np.int32)
        ends = np.cumsum(length, dtype=np.int64)
        total = int(length.sum())
        ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int32, total)
        supervised = np.fromiter(chain.from_iterable(row.supervised for row in rows), bool, total)
        source = np.zeros(len(rows), np.int16)
        last = np.ones(len(rows), bool)
        return Segments((Tokens(ids, supervised),), source, ends - length, length, last)

    @staticmethod
    def join(several: Sequence[Segments]) -> Segments:
        """All segments of several, one after the other."""
        import numpy as np

        several = several or [Segments.of([])]
        sources: list[Tokens] = []
        source = []
        for segments in several:
            source.append(segments.source + np.int16(len(sources)))
            sources += segments.sources
        return Segments(
            tuple(sources),
            np.concatenate(source),
            np.concatenate([segments.start for segments in several]),
            np.concatenate([segments.length for segments in several]),
            np.concatenate([segments.last for segments in several]),
        )

    def __len__(self) -> int:
        return len(self.length)

    def first(self, count: int) -> Segments:
        """The first ``count`` segments."""
        return self._part(slice(count))

    def after(self, count: int) -> Segments:
        """All segments but the first ``count``."""
        return self._part(slice(count, None))

    def _part(self, part: slice) -> Segments:
        return Segments(
            self.sources,
            self.source[part],
            self.start[part],
            self.length[part],
            self.last[part],
        )

    def sizes(self) -> Any:
        """Tokens of each segment, including its BOS."""
        import numpy as np

        bos_tokens = np.array([tokens.bos is not None for tokens in self.sources], np.int32)
        return self.length + bos_tokens[self.source]

    def ids(self, index: int) -> Any:
        """The ids of one segment as they stand in its source, without a BOS."""
        start = self.start[index]
        return self.sources[self.source[index]].ids[start : start + self.length[index]]

    def read(self, index: int) -> tuple[Any, Any]:
        """(ids, supervised) of one segment as int64 and bool arrays, including its BOS."""
        import numpy as np

        tokens = self.sources[self.source[index]]
        start = self.start[index]
        ids = self.ids(index).astype(np.int64)
        if tokens.supervised is None:
            supervised = np.ones(len(ids), bool)
        else:
            supervised = tokens.supervised[start : start + len(ids)]
        if tokens.bos is None:
            return ids, supervised
        return np.concatenate([[tokens.bos], ids]), np.concatenate([[True], supervised])

    def supervised(self) -> Any:
        """Supervised tokens of each segment."""
        import numpy as np

        counts = self.sizes().astype(np.int64)
        for own, tokens in self.by_source():
            if tokens.supervised is None:
                continue
            before = np.concatenate([[0], np.cumsum(tokens.supervised, dtype=np.int64)])
            start = self.start[own]
            length = self.length[own]
            # A BOS counts as supervised, as read() has it, so only the ids are replaced.
            counts[own] += before[start + length] - before[start] - length
        return counts

    def occurrences(self, token: int, supervised: bool = False) -> Any:
        """How often a token occurs in each segment, including its BOS.

        supervised: count only where the loss sees the token.
        """
        import numpy as np

        counts = np.zeros(len(self), np.int64)
        for own, tokens in self.by_source():
            places = _places(tokens.ids, token)
            if supervised and tokens.supervised is not None:
                places = places[tokens.supervised[places]]
            start = self.start[own]
            before = np.searchsorted(places, start)
            until = np.searchsorted(places, start + self.length[own])
            counts[own] = until - before + (tokens.bos == token)
        return counts

    def begins_with(self, token: int) -> Any:
        """Whether each segment begins with a token."""
        import numpy as np

        begins = np.zeros(len(self), bool)
        for own, tokens in self.by_source():
            if tokens.bos is not None:
                begins[own] = tokens.bos == token
            else:
                filled = own[self.length[own] > 0]
                begins[filled] = tokens.ids[self.start[filled]] == token
        return begins

    def counts(self) -> Any:
        """How often each id occurs over all segments, ends included: an int64 array by id.

        Each source is read once from start to end, in chunks.
        """
        import numpy as np

        total = np.zeros(0, np.int64)
        for own, tokens in self.by_source():
            starts = np.sort(self.start[own])
            ends = np.sort(self.start[own] + self.length[own])
            for at in range(0, len(tokens.ids), CHUNK):
                ids = tokens.ids[at : at + CHUNK]
                weights = coverage(starts, ends, at, len(ids))
                total = _add_counts(total, np.bincount(ids, weights=weights))
            if tokens.bos is not None:
                total = _add_counts(total, np.bincount([tokens.bos]) * len(own))
            if tokens.end is not None:
                total = _add_counts(total, np.bincount([tokens.end]) * self.last[own].sum())
        return total

    def end(self, index: int) -> int | None:
        """The id that is the target behind a segment; None where nothing is."""
        return self.sources[self.source[index]].end if self.last[index] else None

    def by_source(self) -> Iterator[tuple[Any, Tokens]]:
        """(indices of its segments, source) for each source that has any."""
        import numpy as np

        for number, tokens in enumerate(self.sources):
            own = np.flatnonzero(self.source == number)
            if len(own):
                yield own, tokens


def _places(ids: Any, token: int) -> Any:
    """The sorted indices at which a token occurs."""
    import numpy as np

    places = [np.zeros(0, np.int64)]
    for at in range(0, len(ids), CHUNK):
        places.append(np.flatnonzero(ids[at : at + CHUNK] == token) + at)
    return np.concatenate(places)


def coverage(starts: Any, ends: Any, at: int, size: int) -> Any:
    """How many segments hold each of the ``size`` places from ``at``; starts and ends are sorted.

    Those that began at a place or before it, less those that ended.
    """
    import numpy as np

    change = np.zeros(size, np.int64)
    change[0] = np.searchsorted(starts, at, "right") - np.searchsorted(ends, at, "right")
    for edges, sign in ((starts, 1), (ends, -1)):
        first = np.searchsorted(edges, at, "right")
        last = np.searchsorted(edges, at + size)
        change += sign * np.bincount(edges[first:last] - at, minlength=size)
    return np.cumsum(change)


def _add_counts(total: Any, counts: Any) -> Any:
    """The sum of two arrays of counts by id, of which either may be the longer one."""
    import numpy as np

    total = np.pad(total, (0, max(0, len(counts) - len(total))))
    # Weighted counts are floats, exact up to 2**53.
    total[: len(counts)] += counts.astype(np.int64)
    return total
