"""index fts5: a full-text index in one file, SQLite FTS5 with BM25 ranking, from Python itself.

The words are an FTS5 table without content (words.py says what a word is), and the passages are an
ordinary table beside it, so every text is stored once. English is stemmed by FTS5's own porter,
other languages by PyStemmer.
"""

from __future__ import annotations

import dataclasses as dc
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from llmstages.data.passages import Passage
from llmstages.plugins.tools.indexes import words
from llmstages.plugins.tools.indexes.language import Analysis, decide, language_option

FILE = "fts5.sqlite"
# Vowel signs of many scripts are marks and belong to their word. SQLite would end it there.
TOKENIZER = "unicode61 categories 'L* N* Co Mn Mc'"
FIELDS = tuple(field.name for field in dc.fields(Passage))
TITLE_WEIGHT = 1.5  # of a word in the title, against one in the text


class FTS5:
    """SQLite FTS5 with BM25: no package is needed."""

    @dc.dataclass(frozen=True)
    class Config:
        language: str = language_option()

    version = "1"

    def __init__(self, config: Config) -> None:
        self.config = config

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        analysis, passages = decide(self.config.language, passages)
        stem = analysis.stem()
        tokenizer = f"porter {TOKENIZER}" if analysis.english else TOKENIZER
        connection = sqlite3.connect(folder / FILE)
        connection.executescript(
            f"""
            PRAGMA journal_mode = OFF;
            CREATE TABLE passages(number INTEGER PRIMARY KEY, {", ".join(FIELDS)});
            CREATE TABLE facts(analysis);
            CREATE VIRTUAL TABLE words USING fts5(title, body, content='', tokenize="{tokenizer}");
            """
        )
        with connection:
            connection.execute("INSERT INTO facts VALUES (?)", (analysis.as_json(),))
            for number, passage in enumerate(passages, 1):
                marks = ", ".join("?" * (len(FIELDS) + 1))
                row = (number, *(getattr(passage, name) for name in FIELDS))
                connection.execute(f"INSERT INTO passages VALUES ({marks})", row)
                title = words.index_words(passage.title, stem)
                body = words.index_words(passage.text, stem)
                connection.execute(
                    "INSERT INTO words(rowid, title, body) VALUES (?, ?, ?)", (number, title, body)
                )
            connection.execute("INSERT INTO words(words) VALUES ('optimize')")
        connection.close()

    def open(self, folder: Path) -> None:
        address = (folder / FILE).absolute().as_uri() + "?mode=ro"
        self._connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        (facts,) = self._connection.execute("SELECT analysis FROM facts").fetchone()
        self._analysis = Analysis.from_json(facts)
        self._stem = self._analysis.stem()

    def find(self, query: str, limit: int) -> list[Passage]:
        asked = words.phrases(query, self._analysis.languages, self._stem)
        if not asked:
            return []
        # Quoted, so that no word of a query is taken for an operator.
        wanted = " OR ".join(f'"{phrase}"' for phrase in asked)
        rows = self._connection.execute(
            f"SELECT {', '.join(FIELDS)} FROM passages JOIN "
            f"(SELECT rowid AS found, bm25(words, {TITLE_WEIGHT}, 1.0) AS score FROM words "
            "WHERE words MATCH ? ORDER BY score, rowid LIMIT ?) ON number = found "
            "ORDER BY score, number",
            (wanted, limit),
        )
        return [Passage(*row) for row in rows]
