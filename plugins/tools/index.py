"""A full-text index in one file: SQLite FTS5 with BM25 ranking, from the standard library."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from llmstages.core.errors import StageError


def build(path: Path, pages: Iterable[str]) -> int:
    """Write an index of the texts; returns their number."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE VIRTUAL TABLE pages USING fts5(text)")
        connection.executemany("INSERT INTO pages(text) VALUES (?)", ((text,) for text in pages))
        count = connection.execute("SELECT count(*) FROM pages").fetchone()[0]
        connection.commit()
    connection.close()
    return int(count)


class Index:
    """Look pages up by words; the best match first."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise StageError(
                f"there is no search index at {path}; it is made by a step with tools=search_tokens"
            )
        self.connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)

    def find(self, query: str, limit: int = 1) -> list[str]:
        """Texts that share words with the query, at most ``limit``."""
        words = re.findall(r"\w+", query)
        if not words:
            return []
        wanted = " OR ".join(f'"{word}"' for word in words)
        rows = self.connection.execute(
            "SELECT text FROM pages WHERE pages MATCH ? ORDER BY rank LIMIT ?", (wanted, limit)
        )
        return [text for (text,) in rows]
