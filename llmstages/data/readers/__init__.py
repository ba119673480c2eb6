"""Files of many kinds as one stream of records: every unreadable or unusable one is named, none is lost in silence.

``read(path)`` yields ``Record`` (a page or a text) or ``Bad`` (what was left out, where and why) for a WARC, HTML, text,
Markdown, JSON(L), Parquet or CSV file; ``rows(path)`` does the same for tables of examples; ``find(...)`` turns what
a user wrote (file, glob, folder) into files. All of them stream: memory holds a document or two, however large the file
and whatever it expands to. Left out on purpose: ARC files, PDF, and anything read from a network.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterator
from pathlib import Path

from llmstages.core.errors import StageError
from llmstages.data.readers.record import MAX_BYTES, Record, Rejected, clean, scrub, too_large
from llmstages.data.readers.rows import TABLES, rows
from llmstages.data.readers.streams import Meter, open_file
from llmstages.data.readers.texts import read_page, read_text
from llmstages.data.readers.warc import read_warc

__all__ = [
    "MAX_BYTES",
    "TABLES",
    "Bad",
    "Meter",
    "Record",
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
    """The files meant by a file name, glob or folder, sorted; StageError with near names when there are none."""
    kinds = ", ".join(suffixes)
    if not pattern:
        raise StageError(
            f"{step} has nothing to read: say {step}.path=FILE (or a folder, or a glob in quotes); it reads {kinds}, also .gz"
        )
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*") if file.is_file() and suffix(file) in suffixes
        )
        if not found:
            raise StageError(
                f"{step}.path={pattern}: no file in this folder can be read; {step} reads {kinds}, also .gz"
            )
        return found
    if any(sign in pattern for sign in "*?["):
        found = sorted(
            Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()
        )
        if not found:
            raise StageError(
                f"{step}.path={pattern}: the pattern matches no file; check the folder, and use ** for subfolders"
            )
        return found
    raise StageError(
        f"{step}.path={pattern}: there is no such file or folder{_near(path)}; correct {step}.path"
    )


def _near(path: Path) -> str:
    """A hint that names what is there: the nearest files, or the part of the path that does not exist."""
    parent = path.parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    names = difflib.get_close_matches(
        path.name, sorted(entry.name for entry in parent.iterdir()), 3, 0.5
    )
    there = f"{parent}" if str(parent) != "." else "this folder"
    return (
        f" ({there} has {', '.join(names)})"
        if names
        else f" ({there} has nothing named like {path.name!r})"
    )


def read(
    path: Path,
    text_column: str = "",
    block: int = 0,
    max_bytes: int = MAX_BYTES,
    meter: Meter | None = None,
) -> Iterator[Record | Rejected]:
    """Every document of one file, in order; at least one Bad that says why when it holds none.

    text_column: the column of tables that holds the text (default: guessed). block: cut plain text files at line ends
    into documents of about this many bytes (0: one document a file). max_bytes: a longer document is a Bad, and is
    never held in memory. meter: told how far reading is.
    """
    nothing = True
    try:
        for found in _reader(path, text_column, block, max_bytes, meter or Meter()):
            nothing = False
            yield found
    except OSError as error:  # no permission, a broken disk: this file alone
        yield Rejected(
            path.name, f"{type(error).__name__}: {error.strerror or error}", url=f"file:{path.name}"
        )
        return
    if nothing:
        yield Rejected(
            path.name,
            "the file is empty" if not path.stat().st_size else "the file holds no document",
            "empty",
            f"file:{path.name}",
        )


def _reader(
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
        return (
            row
            if isinstance(row, Rejected)
            else _from_row(path, position, row, text_column, max_bytes)
            for position, row in rows(path, max_bytes, meter)
        )
    known = ", ".join(WARCS + PAGES + TEXTS + TABLES)
    raise StageError(
        f"{path}: files of type {kind or 'none'!r} cannot be read; known types are {known}, each also with .gz"
    )


def _from_row(
    path: Path, position: str, row: dict, text_column: str, max_bytes: int
) -> Record | Rejected:
    """A table row as a document. Text that starts like a page is taken for HTML."""
    names = (text_column,) if text_column else TEXT_FIELDS
    name = next(
        (name for name in names if isinstance(row.get(name), (str, bytes)) and row[name]), ""
    )
    url = clean(
        next((str(row[field]) for field in URL_FIELDS if row.get(field)), f"file:{position}")
    )
    if not name:
        null = next((name for name in names if name in row and row[name] is None), "")
        if null:
            return Rejected(position, f"the text in {null!r} is null", "null_text", url)
        return Rejected(
            position,
            f"no text in {' or '.join(names)}; the row has {', '.join(map(str, row)) or 'no fields'}"[
                :500
            ],
            "empty",
            url,
        )
    text, replaced = scrub(row[name]) if isinstance(row[name], str) else (row[name], 0)
    body = text.encode() if isinstance(text, str) else text
    if len(body) > max_bytes:
        return too_large(position, "a text", max_bytes, url)
    page = name == "html" or PAGE.match(body[:200])
    return Record(
        clean(str(row.get("id") or position)),
        url,
        body,
        "text/html" if page else "text/plain",
        replaced=replaced,
    )
