"""Files of many kinds as one stream of records: every unreadable or unusable one is named, none is lost in silence.

``read(path)`` yields ``Record`` (a page or a text) or ``Bad`` (what was left out, where and why) for a WARC, HTML, text,
Markdown, JSON(L), Parquet or CSV file; ``rows(path)`` does the same for tables of examples; ``find(...)`` turns what
a user wrote (file, glob, folder) into files. Left out on purpose: ARC files, PDF, and anything read from a network.
"""

from __future__ import annotations

import dataclasses as dc
import difflib
import glob
import re
from collections.abc import Iterator
from pathlib import Path

from llmstages.readers.record import Bad, Record
from llmstages.readers.rows import TABLES, clean, open_file, rows
from llmstages.readers.warc import read_warc
from llmstages.stage import StageError

__all__ = ["Bad", "Record", "TABLES", "clean", "find", "open_file", "read", "read_warc", "rows"]

WARCS = (".warc",)
PAGES = (".html", ".htm", ".xhtml")
TEXTS = (".txt", ".md")
COMPRESSED = (".gz", ".zst")
TEXT_FIELDS = ("text", "content", "html", "body")
URL_FIELDS = ("url", "source_url", "link", "uri")


def suffix(path: Path) -> str:
    """The file type without its compression: ``pages.warc.gz`` -> ``.warc``."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def find(pattern: str, step: str, suffixes: tuple[str, ...] = WARCS + PAGES + TEXTS + TABLES) -> list[Path]:
    """The files meant by a file name, glob or folder, sorted; StageError with near names when there are none."""
    kinds = ", ".join(suffixes)
    if not pattern:
        raise StageError(f"{step} has nothing to read: say {step}.path=FILE (or a folder, or a glob in quotes); it reads {kinds}, also .gz")
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and suffix(file) in suffixes)
        if not found:
            raise StageError(f"{step}.path={pattern}: no file in this folder can be read; {step} reads {kinds}, also .gz")
        return found
    if any(sign in pattern for sign in "*?["):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise StageError(f"{step}.path={pattern}: the pattern matches no file; check the folder, and use ** for subfolders")
        return found
    raise StageError(f"{step}.path={pattern}: there is no such file or folder{_near(path)}; correct {step}.path")


def _near(path: Path) -> str:
    """A hint that names what is there: the nearest files, or the part of the path that does not exist."""
    parent = path.parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    names = difflib.get_close_matches(path.name, sorted(entry.name for entry in parent.iterdir()), 3, 0.5)
    there = f"{parent}" if str(parent) != "." else "this folder"
    return f" ({there} has {', '.join(names)})" if names else f" ({there} has nothing named like {path.name!r})"


def read(path: Path, text_column: str = "", block: int = 0) -> Iterator[Record | Bad]:
    """Every document of one file, in order.

    text_column: the column of tables that holds the text (default: guessed). block: cut plain text files at line ends
    into documents of about this many bytes (0: one document a file).
    """
    kind = suffix(path)
    if kind in WARCS:
        yield from read_warc(path)
    elif kind in PAGES:
        yield _whole(path, "text/html")
    elif kind in TEXTS:
        whole = _whole(path, "text/plain")
        yield from [whole] if isinstance(whole, Bad) else _cut(whole, block)
    elif kind in TABLES:
        for position, row in rows(path):
            yield row if isinstance(row, Bad) else _from_row(path, position, row, text_column)
    else:
        known = ", ".join(WARCS + PAGES + TEXTS + TABLES)
        raise StageError(f"{path}: files of type {kind or 'none'!r} cannot be read; known types are {known}, each also with .gz")


def _whole(path: Path, media: str) -> Record | Bad:
    try:
        with open_file(path) as stream:
            return Record(path.name, f"file:{path.name}", stream.read(), media)
    except (OSError, EOFError) as error:
        return Bad(path.name, f"{type(error).__name__}: {error}", url=f"file:{path.name}")


def _cut(record: Record, block: int) -> Iterator[Record]:
    """A long text as several documents, cut at the first blank line (or line end) after each ``block`` bytes."""
    body = record.body
    if not block or len(body) <= 2 * block or body[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16: line ends are not one byte
        yield record
        return
    start = number = 0
    while start < len(body):
        near = body.find(b"\n\n", start + block, start + 2 * block)
        end = near + 2 if near != -1 else body.find(b"\n", start + block) + 1
        end = len(body) if end <= 0 or len(body) - end < block // 10 else end
        number += 1
        yield dc.replace(record, id=f"{record.id}:{number}", url=f"{record.url}#{number}", body=body[start:end])
        start = end


def _from_row(path: Path, position: str, row: dict, text_column: str) -> Record | Bad:
    """A table row as a document. Text that starts like a page is taken for HTML."""
    names = (text_column,) if text_column else TEXT_FIELDS
    name = next((name for name in names if isinstance(row.get(name), (str, bytes)) and row[name]), "")
    url = next((str(row[field]) for field in URL_FIELDS if row.get(field)), f"file:{position}")
    if not name:
        return Bad(position, f"no text in {' or '.join(names)}; the row has {', '.join(row) or 'no fields'}", "empty", url)
    body = row[name] if isinstance(row[name], bytes) else clean(row[name]).encode()
    page = name == "html" or re.match(rb"\s*<(!doctype html|html)", body[:200], re.IGNORECASE)
    return Record(str(row.get("id") or position), url, body, "text/html" if page else "text/plain")
