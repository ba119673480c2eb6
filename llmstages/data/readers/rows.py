"""Tables of examples (JSON, JSON lines, Parquet, CSV; also gzip and zstd), row by row, with the place of every bad row.

Nothing is held but the row at hand, and a row is read no further than it may be long. Bytes that are not UTF-8 come out
as lone surrogates (surrogateescape), which ``scrub`` replaces and counts: one bad byte costs one character.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from llmstages.core.errors import StageError
from llmstages.data.readers.json_rows import Row, read_json, read_lines
from llmstages.data.readers.record import MAX_BYTES, Rejected, too_large
from llmstages.data.readers.streams import Meter, open_file

TABLES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
PER_ROW = 3  # a row may be this many times max_bytes: other fields, and escapes longer than what they stand for
BATCH_BYTES = 16_000_000  # of Parquet, held at once


def rows(
    path: Path, max_bytes: int = MAX_BYTES, meter: Meter | None = None
) -> Iterator[tuple[str, dict[str, Any] | Rejected]]:
    """(position, row) for each row; position is ``name:number``, counted from 1. A row that cannot be read is a Bad.

    max_bytes: the longest text a row may hold; a row of more than three times as many bytes is passed over unread.
    """
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    kind = Path(name).suffix
    if kind not in TABLES:
        raise StageError(
            f"{path}: tables of type {kind or 'none'!r} cannot be read; known types are {', '.join(TABLES)}"
        )
    reader = {".parquet": _parquet, ".json": read_json, ".csv": _csv, ".tsv": _csv}.get(
        kind, read_lines
    )
    number = 0
    try:
        for number, row in reader(path, PER_ROW * max_bytes, meter or Meter()):
            position = f"{path.name}:{number}"
            if isinstance(row, Rejected):
                yield position, Rejected(position, row.reason, row.rule, row.url, row.limit)
            elif not isinstance(row, dict):
                yield (
                    position,
                    Rejected(
                        position,
                        f"the row is a {type(row).__name__}, not an object with named fields",
                        "format",
                    ),
                )
            else:
                yield position, row
    except (
        OSError,
        EOFError,
        csv.Error,
    ) as error:  # a damaged compressed stream: keep what came before
        position = f"{path.name}:{number + 1}"
        yield position, Rejected(position, f"unreadable from here: {type(error).__name__}: {error}")


def _parquet(path: Path, most: int, meter: Meter) -> Iterator[Row]:
    """A damaged row group costs itself, not those after it."""
    import pyarrow
    import pyarrow.parquet

    number, size = 0, path.stat().st_size
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                at_once = max(
                    1, min(1000, BATCH_BYTES * about.num_rows // max(1, about.total_byte_size))
                )
                end = number + about.num_rows
                try:
                    for batch in file.iter_batches(at_once, [group]):
                        for row in _python(batch):
                            number += 1
                            yield number, row
                        meter.at = size * number // max(1, file.metadata.num_rows)
                except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
                    yield (
                        number + 1,
                        Rejected("", f"damaged row group, {end - number} rows lost: {error}"),
                    )
                number = end
    except (pyarrow.ArrowException, ValueError) as error:
        yield number + 1, Rejected("", f"not Parquet, or damaged from here: {error}", "format")


def _python(batch: Any) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # Parquet does not check its strings
        import pyarrow

        def cells(column: Any) -> list[Any]:
            if column.type not in (pyarrow.string(), pyarrow.large_string()):
                return column.to_pylist()
            return [
                cell and cell.decode("utf-8", "surrogateescape")
                for cell in column.cast(pyarrow.binary()).to_pylist()
            ]

        return [dict(zip(batch.schema.names, row)) for row in zip(*map(cells, batch.columns))]


class _TooLong(Exception):
    """The row at hand is longer than a row may be."""


class _Unclosed(Exception):
    """The file ends within quotes."""


class _Lines:
    """Physical lines for csv.reader, which joins them to rows without any limit of its own.

    It holds the lines of the row at hand, so that an unclosed quote costs one row and not all those that it swallows.
    """

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._text = io.TextIOWrapper(
            stream, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self._most, self._again, self._held, self._size = most, deque[str](), list[str](), 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._text.readline(self._most + 1)
        if not line:
            raise _Unclosed if self._held else StopIteration
        self._held.append(line)
        self._size += len(line)
        if self._size > self._most:
            raise _TooLong
        return line

    def next_row(self) -> None:
        """Forget the lines of this row."""
        self._held.clear()
        self._size = 0

    def back_to_second(self) -> None:
        """Give the lines after the first of this row once more, as rows of their own."""
        self._again.extendleft(reversed(self._held[1:]))
        self.next_row()

    def looks_unclosed(self, delimiter: str, columns: int) -> bool:
        """Whether most lines after the first look like whole rows."""
        whole = [
            len(next(csv.reader([line], delimiter=delimiter), ())) == columns
            for line in self._held[1:101]
        ]
        return columns > 1 and sum(whole) > len(whole) / 2

    def skip_row(self) -> None:
        """Go to the line after this row: the next line end at which all quotes are closed."""
        quotes, line = sum(each.count('"') for each in self._held), self._held[-1]
        while line and not (quotes % 2 == 0 and line.endswith(("\n", "\r"))):
            line = self._again.popleft() if self._again else self._text.readline(1 << 20)
            quotes += line.count('"')
        self.next_row()


def _csv(path: Path, most: int, meter: Meter) -> Iterator[Row]:
    csv.field_size_limit(
        min(sys.maxsize, 2**31 - 1)
    )  # the default of 128 KiB refuses long documents; rows have a limit above
    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    with open_file(path, meter) as stream:
        lines = _Lines(stream, most)
        parsed, header, number = csv.reader(lines, delimiter=delimiter), list[str](), 1
        while True:
            try:
                cells = next(parsed, None)
                lines.next_row()
            except _Unclosed:
                lines.back_to_second()
                cells = Rejected("", "a quote opens in this row and is closed nowhere", "format")
            except _TooLong:
                cells = too_large("", "a row (or a quote that is never closed)", most)
                lines.back_to_second() if lines.looks_unclosed(
                    delimiter, len(header)
                ) else lines.skip_row()
            if cells is None:
                return
            if not header and isinstance(cells, list):
                header = cells
            elif cells:  # blank lines are no rows
                number += 1
                yield number, cells if isinstance(cells, Rejected) else _named(header, cells)


def _named(header: list[str], cells: list[str]) -> dict[str, str | None]:
    padded = cells + [None] * (len(header) - len(cells))
    return {name: cell for name, cell in zip(header, padded) if name}
