"""Files of many kinds as one stream of documents. What cannot be read is named, not lost.

- ``read(path)`` yields a ``Record`` (a page or a text) or a ``Rejected`` (what was left out, where
  and why) for each document of a WARC, HTML, text, Markdown, JSON(L), Parquet or CSV file.
- ``rows(path)`` does the same for tables of examples.
- ``find(pattern, step)`` turns what a user wrote (file, glob, folder) into files.

All of them stream: memory holds a document or two, however large the file and whatever it expands
to. Left out on purpose: ARC files, PDF, and anything read from a network.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmstages.core.digest import data_files
from llmstages.core.errors import StageError
from llmstages.data.readers.record import MAX_BYTES, Record, Rejected, clean, scrub, too_large
from llmstages.data.readers.rows import TABLES, rows
from llmstages.data.readers.streams import Meter, open_file
from llmstages.data.readers.texts import read_page, read_text
from llmstages.data.readers.warc import read_warc

__all__ = [
    "MAX_BYTES",
    "TABLES",
    "Meter",
    "Record",
    "Rejected",
    "clean",
    "find",
    "open_file",
    "read",
    "read_warc",
    "rows",
    "scrub",
    "too_large",
]

WARCS = (".warc",)
PAGES = (".html", ".htm", ".xhtml")
TEXTS = (".txt", ".md")
COMPRESSED = (".gz", ".zst")
TEXT_FIELDS = ("text", "content", "html", "body")
URL_FIELDS = ("url", "source_url", "link", "uri")
PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)


def suffix(path: Path) -> str:
    """The file type without its compression: ``pages.warc.gz`` -> ``.warc``."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def find(
    pattern: str, step: str, suffixes: tuple[str, ...] = WARCS + PAGES + TEXTS + TABLES
) -> list[Path]:
    """The files meant by a file name, glob or folder, sorted.

    Raises StageError if there are none, with the names of files that are near.
    """
    kinds = ", ".join(suffixes)
    if not pattern:
        raise StageError(
            f"{step} has nothing to read: set {step}.path=FILE (or a folder, or a glob in quotes); "
            f"it reads {kinds}, also .gz"
        )
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        _refuse_saved_table(path, pattern, step)
        files = [file for file in data_files(path) if suffix(file) in suffixes]
        if not files:
            raise StageError(
                f"{step}.path={pattern}: no file in this folder can be read; "
                f"{step} reads {kinds}, also .gz (files whose name begins with a dot are no data)"
            )
        return files
    if any(sign in pattern for sign in "*?["):
        # glob, because Path.glob takes no absolute patterns.
        matches = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        files = [match for match in matches if match.is_file()]
        if not files:
            raise StageError(
                f"{step}.path={pattern}: the pattern matches no file; check the folder, "
                "and use ** for subfolders"
            )
        return sorted(files)
    raise StageError(
        f"{step}.path={pattern}: there is no such file or folder{_near(path)}; correct {step}.path"
    )


def _refuse_saved_table(path: Path, pattern: str, step: str) -> None:
    """Raise StageError for a folder of ``save_to_disk``, whose JSON files are not its rows."""
    if not (path / "state.json").is_file() and not (path / "dataset_dict.json").is_file():
        return
    raise StageError(
        f"{step}.path={pattern} is a data set as datasets.save_to_disk() writes it (Arrow). Write "
        f"it as a file first: datasets.load_from_disk({str(path)!r}).to_parquet('rows.parquet'). "
        "The result of a step of a run: llmstages export STEP --to rows.parquet"
    )


def _near(path: Path) -> str:
    """A hint that names what is there: the nearest files, or the folder that does not exist."""
    parent = path.parent
    while not parent.is_dir():
        path = parent
        parent = parent.parent
    entries = sorted(entry.name for entry in parent.iterdir())
    names = difflib.get_close_matches(path.name, entries, 3, 0.5)
    folder = "this folder" if str(parent) == "." else str(parent)
    if not names:
        return f" ({folder} has nothing named like {path.name!r})"
    return f" ({folder} has {', '.join(names)})"


def read(
    path: Path,
    text_column: str = "",
    block: int = 0,
    max_bytes: int = MAX_BYTES,
    meter: Meter | None = None,
) -> Iterator[Record | Rejected]:
    """Every document of one file, in order; at least one Rejected if it holds none.

    Raises StageError if the file type is unknown.

    Args:
        path: the file.
        text_column: the column of tables that holds the text; "": the first of TEXT_FIELDS.
        block: plain text files are cut at line ends into documents of about so many bytes;
            0: one document per file.
        max_bytes: a longer document is rejected, and is never held in memory.
        meter: moved while the file is read.
    """
    url = f"file:{path.name}"
    is_empty = True
    try:
        for document in _documents(path, text_column, block, max_bytes, meter or Meter()):
            is_empty = False
            yield document
    except OSError as error:
        # No permission, a broken disk: it concerns this file alone.
        yield Rejected(path.name, f"{type(error).__name__}: {error.strerror or error}", url=url)
        return
    if is_empty:
        reason = "the file holds no document" if path.stat().st_size else "the file is empty"
        yield Rejected(path.name, reason, "empty", url)


def _documents(
    path: Path, text_column: str, block: int, max_bytes: int, meter: Meter
) -> Iterator[Record | Rejected]:
    kind = suffix(path)
    if kind in WARCS:
        return read_warc(path, max_bytes, meter)
    if kind in PAGES:
        return iter([read_page(path, max_bytes, meter)])
    if kind in TEXTS:
        return read_text(path, block, max_bytes, meter)
    if kind in TABLES:
        return _table_documents(path, text_column, max_bytes, meter)
    known = ", ".join(WARCS + PAGES + TEXTS + TABLES)
    raise StageError(
        f"{path}: files of type {kind or 'none'!r} cannot be read; "
        f"known types are {known}, each also with .gz"
    )


def _table_documents(
    path: Path, text_column: str, max_bytes: int, meter: Meter
) -> Iterator[Record | Rejected]:
    names = (text_column,) if text_column else TEXT_FIELDS
    for position, row in rows(path, max_bytes, meter):
        if isinstance(row, Rejected):
            yield row
        else:
            yield _from_row(position, row, names, max_bytes)


def _from_row(
    position: str, row: dict[str, Any], names: tuple[str, ...], max_bytes: int
) -> Record | Rejected:
    """A table row as a document. names: the columns that may hold the text."""
    url = f"file:{position}"
    for field in URL_FIELDS:
        if row.get(field):
            url = str(row[field])
            break
    url = clean(url)
    for name in names:
        text = row.get(name)
        if text and isinstance(text, (str, bytes)):
            break
    else:
        return _without_text(position, row, names, url)
    replaced = 0
    if isinstance(text, str):
        text, replaced = scrub(text)
        body = text.encode()
    else:
        body = text
    if len(body) > max_bytes:
        return too_large(position, "a text", max_bytes, url)
    # Text that starts like a page is taken for HTML.
    is_page = name == "html" or PAGE.match(body[:200])
    media = "text/html" if is_page else "text/plain"
    return Record(clean(str(row.get("id") or position)), url, body, media, replaced=replaced)


def _without_text(position: str, row: dict[str, Any], names: tuple[str, ...], url: str) -> Rejected:
    """Why a row without text was rejected."""
    for name in names:
        if name in row and row[name] is None:
            return Rejected(position, f"the text in {name!r} is null", "null_text", url)
    fields = ", ".join(map(str, row)) or "no fields"
    reason = f"no text in {' or '.join(names)}; the row has {fields}"
    return Rejected(position, reason[:500], "empty", url)
