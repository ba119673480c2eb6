"""Tables of examples (JSON, JSON lines, Parquet, CSV; also gzip and zstd), row by row, with the place of every bad row.

Lines are read as bytes, one at a time: one bad byte costs one row, not the file (datasets' JSON loader gives up the
whole file, research: data_tokenizer.md section 5, "bad inputs").
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from llmstages.readers.record import Bad
from llmstages.stage import StageError

TABLES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that Arrow and tokenizers accept: lone surrogates become U+FFFD, NUL goes."""
    return SURROGATES.sub("\ufffd", text).replace("\0", "")


def open_file(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed by its ending."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))
    return open(path, "rb")


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | Bad]]:
    """(position, row) for each row; position is ``name:number``, counted from 1. A row that cannot be read is a Bad."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    kind = Path(name).suffix
    if kind not in TABLES:
        raise StageError(f"{path}: tables of type {kind or 'none'!r} cannot be read; known types are {', '.join(TABLES)}")
    reader = {".parquet": _parquet, ".json": _json, ".csv": _csv, ".tsv": _csv}.get(kind, _lines)
    number = 0
    try:
        for number, row in reader(path):
            position = f"{path.name}:{number}"
            if isinstance(row, str):
                yield position, Bad(position, row, "format")
            elif not isinstance(row, dict):
                yield position, Bad(position, f"the row is a {type(row).__name__}, not an object with named fields", "format")
            else:
                yield position, row
    except (OSError, EOFError, csv.Error) as error:  # a damaged compressed stream: keep what came before
        position = f"{path.name}:{number + 1}"
        yield position, Bad(position, f"unreadable from here: {type(error).__name__}: {error}")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open_file(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, _parse(line.removeprefix(b"\xef\xbb\xbf"))


def _parse(line: bytes) -> Any:
    """The value, or a reason (str). Text is decoded leniently, so one bad byte damages one character."""
    try:
        return json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    """A list of rows, an object holding one list of rows, or JSON lines under the wrong name."""
    with open_file(path) as stream:
        text = stream.read().decode("utf-8-sig", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        parsed = [(number, _parse(line.encode())) for number, line in lines]
        if not any(isinstance(row, dict) for _, row in parsed):
            yield 1, f"not JSON: {error}"
            return
        yield from parsed
        return
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        value = lists[0] if len(lists) == 1 and "messages" not in value and "conversations" not in value else [value]
    yield from enumerate(value if isinstance(value, list) else [value], 1)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        yield number + 1, f"not Parquet, or damaged from here: {error}"


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 KiB refuses long documents
    with open_file(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        tab = ".tsv" in path.name.lower()
        for number, row in enumerate(csv.DictReader(text, delimiter="\t" if tab else ","), 2):
            yield number, {key: value for key, value in row.items() if key}
