"""Packing: which documents share a row of training, and the data set that cuts the rows out of flat token arrays.

Documents are *pieces*, (source, start, length) into arrays of ids that may be memory-mapped, so that ten million of
them cost some 200 MB of indices and no text or token is held twice. Whole pieces go to rows by best fit; positions
restart with each, which is how transformers keeps packed documents from seeing each other. Nothing here knows a
tokenizer. Best-fit packing of whole documents: Ding et al. 2024, "Fewer Truncations Improve Language Modeling", with a
window of open rows instead of all of them, which keeps neighbours in the order of training random.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from llmstages.text.render import Rendered

CHUNK = 1 << 22  # tokens looked at in one go where a whole source is counted


@dataclass(frozen=True, eq=False)
class Tokens:
    """A flat array of ids that pieces point into.

    supervised: for each id whether the loss sees it; None for all. bos: id that begins each piece without standing in
    ``ids`` (a document cut in parts begins each with it); None where the ids hold it themselves.
    """

    ids: Any
    supervised: Any = None
    bos: int | None = None


@dataclass(frozen=True, eq=False)
class Segments:
    """Documents, or parts of them, in order: piece i is ids[start[i] : start[i] + length[i]] of sources[source[i]]."""

    sources: tuple[Tokens, ...]
    source: Any
    start: Any
    length: Any

    @staticmethod
    def cut(tokens: Tokens, starts: Any, lengths: Any, room: int) -> Segments:
        """Documents in parts of at most ``room`` ids, in order; nothing is lost, and an empty document stays one empty part."""
        import numpy as np

        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        parts = np.maximum(-(-lengths // room), 1)
        ends = np.repeat(starts + lengths, parts)
        begin = (
            np.arange(len(ends)) - np.repeat(np.cumsum(parts) - parts, parts)
        ) * room + np.repeat(starts, parts)
        return Segments(
            (tokens,),
            np.zeros(len(ends), np.int16),
            begin,
            np.minimum(ends - begin, room).astype(np.int32),
        )

    @staticmethod
    def of(rows: Sequence[Any]) -> Segments:
        """Rendered rows, which stay in memory as arrays."""
        import numpy as np

        length = np.array([len(row.ids) for row in rows], np.int32)
        ends, total = np.cumsum(length, dtype=np.int64), int(length.sum())
        ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int32, total)
        supervised = np.fromiter(chain.from_iterable(row.supervised for row in rows), bool, total)
        return Segments(
            (Tokens(ids, supervised),), np.zeros(len(rows), np.int16), ends - length, length
        )

    @staticmethod
    def join(several: Sequence[Segments]) -> Segments:
        """All of them, one after the other."""
        import numpy as np

        several = several or [Segments.of([])]
        shift = np.cumsum([0, *(len(one.sources) for one in several)])
        return Segments(
            tuple(chain.from_iterable(one.sources for one in several)),
            np.concatenate(
                [one.source + np.int16(by) for one, by in zip(several, shift[:-1], strict=True)]
            ),
            np.concatenate([one.start for one in several]),
            np.concatenate([one.length for one in several]),
        )

    def __len__(self) -> int:
        return len(self.length)

    def first(self, count: int) -> Segments:
        """The first ``count`` of them."""
        return Segments(self.sources, self.source[:count], self.start[:count], self.length[:count])

    def sizes(self) -> Any:
        """Tokens of each piece, its BOS included."""
        import numpy as np

        return (
            self.length
            + np.array([one.bos is not None for one in self.sources], np.int32)[self.source]
        )

    def read(self, index: int) -> tuple[Any, Any]:
        """(ids, supervised) of one piece as arrays, its BOS included."""
        import numpy as np

        tokens, start = self.sources[self.source[index]], self.start[index]
        ids = tokens.ids[start : start + self.length[index]].astype(np.int64)
        on = (
            np.ones(len(ids), bool)
            if tokens.supervised is None
            else tokens.supervised[start : start + len(ids)]
        )
        return (
            (ids, on)
            if tokens.bos is None
            else (np.concatenate([[tokens.bos], ids]), np.concatenate([[True], on]))
        )

    def supervised(self) -> Any:
        """Supervised tokens of each piece."""
        import numpy as np

        out = self.sizes().astype(np.int64)
        for mine, tokens in self._parts():
            if tokens.supervised is not None:
                before = np.concatenate([[0], np.cumsum(tokens.supervised, dtype=np.int64)])
                out[mine] += (
                    before[self.start[mine] + self.length[mine]]
                    - before[self.start[mine]]
                    - self.length[mine]
                )
        return out

    def occurrences(self, token: int, supervised: bool = False) -> Any:
        """How often a token stands in each piece, its BOS included (supervised=True: only where the loss sees it)."""
        import numpy as np

        out = np.zeros(len(self), np.int64)
        for mine, tokens in self._parts():
            found = np.concatenate(
                [
                    np.flatnonzero(tokens.ids[at : at + CHUNK] == token) + at
                    for at in range(0, len(tokens.ids), CHUNK)
                ]
                or [np.zeros(0, np.int64)]
            )
            if supervised and tokens.supervised is not None:
                found = found[tokens.supervised[found]]
            start = self.start[mine]
            out[mine] = (
                np.searchsorted(found, start + self.length[mine])
                - np.searchsorted(found, start)
                + (tokens.bos == token)
            )
        return out

    def begins_with(self, token: int) -> Any:
        """Whether each piece begins with a token."""
        import numpy as np

        out = np.zeros(len(self), bool)
        for mine, tokens in self._parts():
            if tokens.bos is not None:
                out[mine] = tokens.bos == token
            else:
                some = mine[self.length[mine] > 0]
                out[some] = tokens.ids[self.start[some]] == token
        return out

    def counts(self) -> Any:
        """How often each id occurs over all pieces: an array by id. Read once from start to end, in chunks."""
        import numpy as np

        total = np.zeros(0, np.int64)

        def add(some: Any) -> None:
            nonlocal total
            total = np.pad(total, (0, max(0, len(some) - len(total))))
            total[: len(some)] += some.astype(
                np.int64
            )  # weighted counts are floats, exact up to 2**53

        for mine, tokens in self._parts():
            begins, ends = np.sort(self.start[mine]), np.sort(self.start[mine] + self.length[mine])
            for at in range(0, len(tokens.ids), CHUNK):
                ids = tokens.ids[at : at + CHUNK]
                # how many pieces hold each place: those begun before it, less those that have ended
                change = np.zeros(len(ids), np.int64)
                change[0] = np.searchsorted(begins, at, "right") - np.searchsorted(
                    ends, at, "right"
                )
                for edges, sign in ((begins, 1), (ends, -1)):
                    here = edges[
                        np.searchsorted(edges, at, "right") : np.searchsorted(edges, at + len(ids))
                    ]
                    change += sign * np.bincount(here - at, minlength=len(ids))
                add(np.bincount(ids, weights=np.cumsum(change)))
            if tokens.bos is not None:
                add(np.bincount([tokens.bos]) * len(mine))
        return total

    def _parts(self) -> Iterator[tuple[Any, Tokens]]:
        """(indices of its pieces, source) for each source that has any."""
        import numpy as np

        for number, tokens in enumerate(self.sources):
            mine = np.flatnonzero(self.source == number)
            if len(mine):
                yield mine, tokens


def plan(sizes: Any, length: int, seed: int, window: int = 40) -> tuple[Any, Any]:
    """Best fit in random order: (order, bounds), where row r holds the pieces order[bounds[r] : bounds[r + 1]].

    sizes: tokens of each piece, at most ``length``. At most ``window`` rows are open; a piece goes to the fullest it fits
    in (the oldest of equals), and when a row too many is open the fullest is closed. About a microsecond a piece.
    """
    import numpy as np

    rng, count = random.Random(seed), len(sizes)
    order = array("q", range(count))
    rng.shuffle(order)
    order, sizes = np.frombuffer(order, np.int64), np.asarray(sizes)
    row_of, closed, made = np.empty(count, np.int64), array("q"), 0
    # An open row is one number, used * base - row, and the numbers are sorted: the last one that is small enough is
    # the fullest row with room, and of equally full ones the oldest.
    base, opened = count + 1, []
    for at in range(0, count, CHUNK):
        rows = []
        for size in sizes[order[at : at + CHUNK]].tolist():
            fits = bisect_right(opened, (length - size) * base)
            if fits:
                number = opened.pop(fits - 1)
                rows.append(-number % base)
                insort(opened, number + size * base)
            else:
                rows.append(made)
                insort(opened, size * base - made)
                made += 1
                if len(opened) > window:
                    closed.append(-opened.pop() % base)
        row_of[at : at + len(rows)] = rows
    closed.extend(sorted(-number % base for number in opened))
    rng.shuffle(closed)
    place = np.empty(made, np.int64)
    place[np.frombuffer(closed, np.int64) if made else []] = np.arange(made)
    row_of = place[row_of]
    return order[np.argsort(row_of, kind="stable")], np.concatenate(
        [[0], np.cumsum(np.bincount(row_of, minlength=made))]
    )


class Packed:
    """Rows of ``length`` tokens as a map-style data set: input_ids, labels, position_ids as int64 arrays.

    ``cut`` counts the tokens of pieces longer than a row, which are cut there.
    """

    def __init__(self, pieces: Segments, length: int, pad: int, seed: int) -> None:
        import numpy as np

        sizes = pieces.sizes()
        self.pieces, self.length, self.pad = pieces, length, pad
        self.cut = int(np.maximum(sizes - length, 0, dtype=np.int64).sum())
        self.order, self.bounds = plan(np.minimum(sizes, length), length, seed)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def first(self, count: int) -> Packed:
        """The first rows of the same plan."""
        few = object.__new__(Packed)
        few.__dict__.update(self.__dict__, bounds=self.bounds[: count + 1])
        return few

    def __getitem__(self, row: int) -> Mapping[str, Any]:
        import numpy as np

        if not 0 <= row < len(self):
            raise IndexError(row)
        ids, labels = np.full(self.length, self.pad, np.int64), np.full(self.length, -100, np.int64)
        positions, at = np.empty(self.length, np.int64), 0
        for piece in self.order[self.bounds[row] : self.bounds[row + 1]]:
            own, on = (part[: self.length] for part in self.pieces.read(piece))
            end = at + len(own)
            ids[at:end], positions[at:end] = own, np.arange(len(own))
            labels[at + 1 : end] = np.where(on, own, -100)[
                1:
            ]  # nothing predicts the first token of a document
            at = end
        positions[at:] = np.arange(self.length - at)
        return {"row": row, "input_ids": ids, "labels": labels, "position_ids": positions}


def pack(
    rows: Sequence[Rendered], length: int, pad: int, seed: int
) -> tuple[list[dict[str, list[int]]], int]:
    """Rendered rows packed whole into rows of ``length`` tokens (py): (rows of input_ids, labels, position_ids; cut tokens).

    A document longer than a row is cut, and the tokens cut are counted.
    """
    packed = Packed(Segments.of(rows), length, pad, seed)
    return [
        {name: values.tolist() for name, values in row.items() if name != "row"} for row in packed
    ], packed.cut
