"""A full-text index in one file: SQLite FTS5 with BM25 ranking, from the standard library.

FTS5 takes what stands between blanks for a word. In scripts that are written without blanks, or
that attach endings to words (Chinese, Japanese, Korean, Thai and others), each character is a word
of the index, and a query asks for its pairs of neighboring characters.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from llmstages.core.errors import StageError

# Characters of scripts in which words are not found by blanks.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # ideographs
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul
)
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
# Signs that are left out where a text is written plainly: accents, and the vowels of Hebrew and
# Arabic with the stroke that only stretches a word.
UNWRITTEN = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0640\u064b-\u065f\u0670]")
# Vowel signs of many scripts are marks and belong to their word. SQLite would end it there.
TOKENIZER = "unicode61 categories 'L* N* Co Mn Mc'"


def plain(text: str) -> str:
    """The text as it is compared: without case, accents and forms that look alike."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", UNWRITTEN.sub("", decomposed))


def with_blanks(text: str) -> str:
    """The text with blanks around each character of a script without blanks."""
    return UNSPACED_CHARACTER.sub(lambda match: f" {match.group()} ", text)


def terms(text: str) -> list[str]:
    """Words, and runs of characters of scripts without blanks."""
    groups = itertools.groupby(text, _kind_of)
    return ["".join(characters) for kind, characters in groups if kind != "between"]


def phrases(query: str) -> list[str]:
    """What a query asks for: its words, and the pairs of neighbors of scripts without blanks."""
    wanted = []
    for term in terms(plain(query)):
        if not UNSPACED_CHARACTER.match(term) or len(term) == 1:
            wanted.append(term)
            continue
        wanted += [f"{first} {second}" for first, second in itertools.pairwise(term)]
    return wanted


def _kind_of(character: str) -> str:
    """Whether it is of a script without blanks, a part of another word, or between words."""
    if UNSPACED_CHARACTER.match(character):
        return "unspaced"
    return "word" if unicodedata.category(character)[0] in "LNM" else "between"


def build(path: Path, pages: Iterable[str]) -> int:
    """Write an index of the texts; returns their number."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            f'CREATE VIRTUAL TABLE pages USING fts5(words, text UNINDEXED, tokenize="{TOKENIZER}")'
        )
        rows = ((with_blanks(plain(text)), text) for text in pages)
        connection.executemany("INSERT INTO pages(words, text) VALUES (?, ?)", rows)
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
        wanted = " OR ".join(f'"{phrase}"' for phrase in phrases(query))
        if not wanted:
            return []
        rows = self.connection.execute(
            "SELECT text FROM pages WHERE pages MATCH ? ORDER BY rank LIMIT ?", (wanted, limit)
        )
        return [text for (text,) in rows]
