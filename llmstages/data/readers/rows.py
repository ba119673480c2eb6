"""Tables of examples, row by row, with the place of every bad row.

JSON, JSON lines, Parquet, CSV and TSV, also compressed by gzip or zstd. Memory holds only the
current row, and a row is not read further than it may be long. UTF-16 is known by its mark. Other
bytes that are not UTF-8 become lone surrogates (surrogateescape), which ``examples`` reads as
Windows-1252 where that is likely, or replaces, and counts either way.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from llmstages.core.errors import StageError
from llmstages.data.readers.encodings import open_utf8
from llmstages.data.readers.json_rows import Row, read_json, read_lines
from llmstages.data.readers.record import MAX_BYTES, Rejected, too_large
from llmstages.data.readers.streams import Meter

TABLES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
# A row may be so many times max_bytes: it has other fields, and escapes are longer than their text.
PER_ROW = 3
BATCH_BYTES = 16_000_000  # of Parquet, held at once
DELIMITERS = (",", ";", "\t", "|")  # of equally many in the first line, the first of these
# Excel's word for the separator, in a line before the names of the columns.
EXCEL_SEPARATOR = re.compile(rb"(?:\xef\xbb\xbf)?sep=(.)\r?\n", re.IGNORECASE)
HEADER_BYTES = 4096  # of a table, in which its delimiter is looked for


def rows(
    path: Path, max_bytes: int = MAX_BYTES, meter: Meter | None = None
) -> Iterator[tuple[str, dict[str, Any] | Rejected]]:
    """(position, row) for each row; the position is ``name:number``, counted from 1.

    A row that cannot be read is a Rejected. Raises StageError for a file of another type.

    Args:
        path: the file.
        max_bytes: the longest text that a row may hold; a row of more than three times as many
            bytes is skipped without parsing.
        meter: moved while the file is read.
    """
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    kind = Path(name).suffix
    if kind not in TABLES:
        raise StageError(
            f"{path}: tables of type {kind or 'none'!r} cannot be read; "
            f"known types are {', '.join(TABLES)}"
        )
    readers = {".parquet": _parquet, ".json": read_json, ".csv": _csv, ".tsv": _csv}
    reader = readers.get(kind, read_lines)
    number = 0
    try:
        for number, row in reader(path, PER_ROW * max_bytes, meter or Meter()):
            position = f"{path.name}:{number}"
            if isinstance(row, dict):
                yield position, row
            elif isinstance(row, Rejected):
                yield position, Rejected(position, row.reason, row.rule, row.url, row.limit)
            else:
                reason = f"the row is a {type(row).__name__}, not an object with named fields"
                yield position, Rejected(position, reason, "format")
    except (OSError, EOFError, csv.Error) as error:
        # A damaged compressed stream. The rows before the damage are kept.
        position = f"{path.name}:{number + 1}"
        yield position, Rejected(position, f"unreadable from here: {type(error).__name__}: {error}")


def _parquet(path: Path, max_row: int, meter: Meter) -> Iterator[Row]:
    """Rows of a Parquet file. A damaged row group costs itself, not those after it."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    size = path.stat().st_size
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            for group in range(file.num_row_groups):
                group_size = file.metadata.row_group(group)
                batch_rows = BATCH_BYTES * group_size.num_rows // max(1, group_size.total_byte_size)
                batch_rows = max(1, min(1000, batch_rows))
                end = number + group_size.num_rows
                try:
                    for batch in file.iter_batches(batch_rows, [group]):
                        for row in _batch_rows(batch):
                            number += 1
                            yield number, row
                        meter.position = size * number // max(1, file.metadata.num_rows)
                except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
                    reason = f"damaged row group, {end - number} rows lost: {error}"
                    yield number + 1, Rejected("", reason)
                number = end
    except (pyarrow.ArrowException, ValueError) as error:
        yield number + 1, Rejected("", f"not Parquet, or damaged from here: {error}", "format")


def _batch_rows(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch, of which strings may hold bytes that are not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        # Parquet does not check its strings.
        columns = [_cells(column) for column in batch.columns]
        names = batch.schema.names
        return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _cells(column: Any) -> list[Any]:
    """The values of an Arrow column; bytes that are not UTF-8 become surrogates."""
    import pyarrow

    if column.type not in (pyarrow.string(), pyarrow.large_string()):
        return column.to_pylist()
    cells = []
    for cell in column.cast(pyarrow.binary()).to_pylist():
        cells.append(cell and cell.decode("utf-8", "surrogateescape"))
    return cells


class _TooLong(Exception):
    """The current row is longer than a row may be."""


class _Unclosed(Exception):
    """The file ends within quotes."""


class _Lines:
    """Physical lines for csv.reader, which joins them to rows without a limit of its own.

    It holds the lines of the current row, so that a quote that is never closed costs one row, not
    all the rows that it swallows.
    """

    def __init__(self, stream: IO[bytes], max_row: int) -> None:
        self._text = io.TextIOWrapper(
            stream, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self._max_row = max_row
        self._again = deque[str]()
        self._held = list[str]()
        self._size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._next_line(self._max_row + 1)
        if not line:
            raise _Unclosed if self._held else StopIteration
        self._held.append(line)
        self._size += len(line)
        if self._size > self._max_row:
            raise _TooLong
        return line

    def _next_line(self, limit: int) -> str:
        """The next line, or ``limit`` characters of it; "" at the end."""
        if self._again:
            return self._again.popleft()
        return self._text.readline(limit)

    def next_row(self) -> None:
        """Forget the lines of the current row."""
        self._held.clear()
        self._size = 0

    def back_to_second(self) -> None:
        """Give all lines of this row but the first once more, as rows of their own."""
        self._again.extendleft(reversed(self._held[1:]))
        self.next_row()

    def looks_unclosed(self, delimiter: str, columns: int) -> bool:
        """Whether most lines after the first look like whole rows."""
        if columns <= 1:
            return False
        lines = self._held[1:101]
        whole = 0
        for line in lines:
            cells = next(csv.reader([line], delimiter=delimiter), ())
            whole += len(cells) == columns
        return whole > len(lines) / 2

    def skip_row(self) -> None:
        """Go to the line after this row: after the next line end at which all quotes are closed."""
        quotes = sum(line.count('"') for line in self._held)
        line = self._held[-1]
        while line and not (quotes % 2 == 0 and line.endswith(("\n", "\r"))):
            line = self._next_line(1 << 20)
            quotes += line.count('"')
        self.next_row()


def _delimiter(path: Path, start: bytes) -> str:
    """What separates the cells of a table: by its ending, or by its first line.

    Spreadsheets of many countries write semicolons, since their decimals have commas.
    """
    if ".tsv" in path.name.lower():
        return "\t"
    if named := EXCEL_SEPARATOR.match(start):
        return named[1].decode("latin-1")
    header = re.sub(rb'"[^"]*"', b"", start.splitlines()[0] if start.strip() else b"")
    counts = {sign: header.count(sign.encode()) for sign in DELIMITERS}
    return max(DELIMITERS, key=lambda sign: counts[sign])


def _csv(path: Path, max_row: int, meter: Meter) -> Iterator[Row]:
    # The default of 128 KiB refuses long documents. _Lines limits the rows instead.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open_utf8(path, meter) as stream:
        delimiter = _delimiter(path, stream.peek(HEADER_BYTES)[:HEADER_BYTES])
        lines = _Lines(stream, max_row)
        parsed = csv.reader(lines, delimiter=delimiter)
        header: list[str] = []
        number = 1
        while True:
            cells: list[str] | Rejected | None
            try:
                cells = next(parsed, None)
                lines.next_row()
            except _Unclosed:
                lines.back_to_second()
                cells = Rejected("", "a quote opens in this row and is never closed", "format")
            except _TooLong:
                cells = too_large("", "a row (or a quote that is never closed)", max_row)
                if lines.looks_unclosed(delimiter, len(header)):
                    lines.back_to_second()
                else:
                    lines.skip_row()
            if cells is None:
                return
            if not cells:
                # A blank line is not a row.
                continue
            if isinstance(cells, Rejected):
                number += 1
                yield number, cells
            elif not header:
                is_separator = ",".join(cells).lower().startswith("sep=")
                header = [] if is_separator else cells
            else:
                number += 1
                yield number, _named(header, cells)


def _named(header: list[str], cells: list[str]) -> dict[str, str | None]:
    """The cells of a row by column; None for missing cells. Surplus cells are left out."""
    row: dict[str, str | None] = {}
    for column, name in enumerate(header):
        if name:
            row[name] = cells[column] if column < len(cells) else None
    return row
