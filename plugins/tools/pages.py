"""The pages that are indexed: rows of documents or of a corpus, and pages that dialogues bring.

HTML is reduced to its visible text and its title. That is enough to search in, but not what a
model should learn from: the stage ``corpus`` extracts and filters.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmstages.core.stage import Artifact
from llmstages.data.passages import Page
from llmstages.data.readers.encodings import web_codec

TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
HEAD = 100_000  # characters in which a title is looked for
NO_ADDRESS = "file:"  # how the readers begin the address of what has none


def pages_of(artifact: Artifact) -> Iterator[Page]:
    """Yield the pages of documents or of a corpus, in order. A column ``title`` is used."""
    from llmstages.data import tables

    for row in tables.load(artifact.path / "data"):
        title = str(row.get("title") or "")
        if "text" in row:
            text = row["text"] or ""
        else:
            text, found = _decoded(row)
            title = title or found
        url = str(row.get("url") or "")
        if url.startswith(NO_ADDRESS):
            url = ""
        yield Page(text, url, title, str(row.get("id") or ""))


def _decoded(row: Mapping[str, Any]) -> tuple[str, str]:
    """(text, title) of a stored document."""
    codec = web_codec(row.get("charset") or "") or "utf-8"
    body = (row["body"] or b"").decode(codec, "replace")
    if row.get("media") != "text/html":
        return body, ""
    from trafilatura import html2txt

    match = TITLE.search(body[:HEAD])
    title = " ".join(html.unescape(match[1]).split()) if match else ""
    return html2txt(body) or "", title
