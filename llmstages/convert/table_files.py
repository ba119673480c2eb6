"""A table of an artifact (``data/`` or ``dropped/``) as one Parquet or JSON lines file."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data import tables

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")
BATCH_ROWS = 1000
Advance = Callable[[float], None]


def is_table_file(name: str) -> bool:
    """Whether a file of this name is written as a table."""
    return name.endswith(ENDINGS)


def export_table(folder: Path, file: Path, advance: Advance | None = None) -> int:
    """Write every row of a table, with all its columns, and return their number.

    The file is written aside and renamed, so it is whole or not there.

    Args:
        folder: a saved ``datasets`` folder.
        file: its ending chooses the format: .parquet, .jsonl or .jsonl.gz.
        advance: called with the number of rows that were written since the last call.

    Raises:
        StageError: the ending is another one, or JSON cannot express a column.
    """
    if not is_table_file(file.name):
        raise StageError(f"{file} has to end in one of {', '.join(ENDINGS)}")
    table = tables.load(folder)
    write = _write_parquet if file.name.endswith(".parquet") else _write_json_lines
    part = file.with_name(f"{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(table, part, file.name.endswith(".gz"), advance or (lambda n: None))
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    return len(table)


def _write_parquet(table: Any, part: Path, compressed: bool, advance: Advance) -> None:
    import pyarrow.parquet as parquet

    schema = table.features.arrow_schema
    with parquet.ParquetWriter(part, schema) as writer:
        for batch in table.with_format("arrow").iter(BATCH_ROWS):
            writer.write_table(batch.cast(schema))
            advance(batch.num_rows)


def _write_json_lines(table: Any, part: Path, compressed: bool, advance: Advance) -> None:
    # Without a time in the header, equal rows give equal bytes.
    with part.open("wb") as raw:
        stream: Any = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        for row in _rows(table):
            line = json.dumps(row, ensure_ascii=False, default=_as_json)
            stream.write(line.encode() + b"\n")
            advance(1)
        if compressed:
            stream.close()


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    names = table.column_names
    for batch in table.iter(BATCH_ROWS):
        for values in zip(*(batch[name] for name in names), strict=True):
            yield dict(zip(names, values, strict=True))


def _as_json(value: Any) -> Any:
    """What JSON says instead of a value of another type."""
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, bytes):
        raise StageError(
            "a column of this table holds bytes (the body of a page as it was stored), which JSON "
            "cannot express: choose a file that ends in .parquet"
        )
    raise StageError(
        f"a column of this table holds a {type(value).__name__}, which JSON cannot express: "
        "choose a file that ends in .parquet"
    )
