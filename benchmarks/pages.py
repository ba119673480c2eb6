"""HTML pages on any machine: those of a WARC, or what pydoc writes about the standard library."""

from __future__ import annotations

import contextlib
import importlib
import pydoc
import sys
from pathlib import Path
from typing import Any

SKIPPED = {
    "antigravity",
    "this",
    "idlelib",
    "test",
    "turtledemo",
    "lib2to3",
    "tkinter",
}  # open windows, or run on import
MOST = 250


def pages(warc: str = "") -> list[dict[str, Any]]:
    """Rows of a documents table: id, url, body, media, charset."""
    if warc:
        from llmstages.data.readers import Record, read

        found = [
            record
            for record in read(Path(warc))
            if isinstance(record, Record) and record.media == "text/html"
        ]
        return [
            {"id": r.id, "url": r.url, "body": r.body, "media": r.media, "charset": r.charset}
            for r in found
        ]
    made = []
    for name in sorted(sys.stdlib_module_names - SKIPPED):
        with contextlib.suppress(Exception):  # modules of other systems
            html = pydoc.html.page(name, pydoc.html.document(importlib.import_module(name), name))
            made.append(
                {
                    "id": name,
                    "url": f"https://example.org/{name}.html",
                    "body": html.encode(),
                    "media": "text/html",
                    "charset": "utf-8",
                }
            )
        if len(made) == MOST:
            break
    return made
