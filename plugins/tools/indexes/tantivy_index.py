"""index tantivy: a folder of the search engine tantivy, for hundreds of thousands of passages.

Words are those of words.py, so it finds what fts5 finds; English is stemmed by tantivy, other
languages by PyStemmer. Its files have random names, so two builds of the same pages differ in bytes
and in nothing else.
"""

from __future__ import annotations

import dataclasses as dc
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmstages.core.stage import option
from llmstages.data.passages import Passage
from llmstages.plugins.tools.indexes import words
from llmstages.plugins.tools.indexes.fts5 import TITLE_WEIGHT
from llmstages.plugins.tools.indexes.language import Analysis, decide, language_option

FOLDER = "tantivy"
FACTS = "tantivy.json"
ANALYZER = "llmstages"
LONGEST_WORD = 100  # bytes; tantivy refuses words of more than 65,530


class Tantivy:
    """The search engine tantivy: queries of large indexes take a fraction of a millisecond."""

    @dc.dataclass(frozen=True)
    class Config:
        language: str = language_option()
        memory_mb: int = option(
            64, "memory of the writer in megabytes", ge=15, le=4096, identity=False
        )

        def __post_init__(self) -> None:
            if importlib.util.find_spec("tantivy") is None:
                raise ValueError(
                    "needs the package tantivy, which is not installed. "
                    "Run: pip install 'llmstages[tantivy]'"
                )

    version = "1"

    def __init__(self, config: Config) -> None:
        self.config = config

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        import tantivy

        analysis, passages = decide(self.config.language, passages)
        (folder / FACTS).write_text(analysis.as_json(), encoding="utf-8")
        (folder / FOLDER).mkdir()
        index = tantivy.Index(_schema(), path=str(folder / FOLDER))
        index.register_tokenizer(ANALYZER, _analyzer(analysis))
        stem = analysis.stem()
        # One thread: with more, passages of equal score come in another order each time.
        writer = index.writer(heap_size=self.config.memory_mb * 1_000_000, num_threads=1)
        for passage in passages:
            writer.add_document(
                tantivy.Document(
                    title_words=words.index_words(passage.title, stem),
                    body_words=words.index_words(passage.text, stem),
                    passage=json.dumps(dc.asdict(passage)).encode(),
                )
            )
        writer.commit()
        writer.wait_merging_threads()

    def open(self, folder: Path) -> None:
        import tantivy

        facts = (folder / FACTS).read_text(encoding="utf-8")
        self._analysis = Analysis.from_json(facts)
        self._stem = self._analysis.stem()
        self._index = tantivy.Index.open(str(folder / FOLDER))
        self._index.register_tokenizer(ANALYZER, _analyzer(self._analysis))
        self._searcher = self._index.searcher()

    def find(self, query: str, limit: int) -> list[Passage]:
        asked = words.phrases(query, self._analysis.languages, self._stem)
        if not asked:
            return []
        # Quoted, so that no word of a query is taken for an operator.
        wanted = self._index.parse_query(
            " ".join(f'"{phrase}"' for phrase in asked),
            ["title_words", "body_words"],
            field_boosts={"title_words": TITLE_WEIGHT},
        )
        found = []
        for _, address in self._searcher.search(wanted, limit).hits:
            stored: Any = self._searcher.doc(address).get_first("passage")
            found.append(Passage(**json.loads(bytes(stored))))
        return found


def _schema() -> Any:
    import tantivy

    builder = tantivy.SchemaBuilder()
    for name in ("title_words", "body_words"):
        builder.add_text_field(name, stored=False, tokenizer_name=ANALYZER)
    builder.add_bytes_field("passage", stored=True)
    return builder.build()


def _analyzer(analysis: Analysis) -> Any:
    """What is left to do for tantivy: the words have blanks between them already."""
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    builder = builder.filter(tantivy.Filter.remove_long(LONGEST_WORD))
    if analysis.english:
        builder = builder.filter(tantivy.Filter.stemmer("english"))
    return builder.build()
