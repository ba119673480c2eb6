"""Web pages to a training corpus: extract the text, filter, remove duplicates and personal data.

The order of the filters is the order of the mapping; filters that need the URL alone run before extraction. Nothing is
lost in silence: what is read is kept or stands in ``dropped/`` with the rule, the value and the limit, and the stage
fails if the two do not add up. Decontamination and the C4 and FineWeb quality rules are not here yet.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator, Mapping
from typing import Any

from llmstages import tables
from llmstages.registry import load_part
from llmstages.stage import Context, StageError, option

COLUMNS = ("id", "url", "text")
DROPPED = ("id", "url", "rule", "value", "limit", "excerpt")
DEFAULT = ("url", "language", "gopher_repetition", "gopher_quality", "exact_dedup", "minhash_dedup", "pii")


class Web:
    """Extraction with trafilatura, then filters in the order given (default: the FineWeb recipe, as far as it is here)."""

    @dc.dataclass(frozen=True)
    class Config:
        filters: dict[str, Any] = option(help="name -> {use: filter, ...its fields}; run in this order", factory=dict)
        comments: bool = option(False, "keep the comments under an article")
        tables: bool = option(True, "keep the text of tables")
        favour_precision: bool = option(False, "extract less, with less boilerplate (FineWeb's choice)")
        fast: bool = option(False, "extract without the fallback algorithms: some 1.4 times as fast, slightly worse")
        seconds: float = option(10.0, "CPU seconds one page may take to extract")
        max_bytes: int = option(10_000_000, "pages larger than this many bytes are dropped unparsed")
        max_characters: int = option(1_000_000, "texts longer than this many characters are dropped")
        max_replaced: float = option(0.01, "largest share of U+FFFD (undecodable) characters in a text")
        split: str = option("none", "paragraph: every line of a kept page becomes a document of its own, after all filters",
                            choices=("none", "paragraph"))
        min_paragraph_words: int = option(0, "with split=paragraph: shorter paragraphs (headings) are skipped; unit: words between blanks")
        max_error_rate: float = option(0.01, "share of a batch on which a filter may fail before the stage stops")
        workers: int = option(0, "extraction processes; 0: one a CPU, none for fewer than 200 documents", identity=False)

    inputs = {"documents": "documents"}
    output = "corpus"
    version = "2"
    parts = {"filters": DEFAULT}

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        from llmstages.plugins.corpus.pipeline import Ledger, run_filters

        source = ctx.one("documents").path
        table = tables.load(source / "data")
        filters = {name: load_part("filters", spec) for name, spec in config.filters.items()}
        early = {name: each for name, each in filters.items() if getattr(each, "early", False)}
        late = {name: each for name, each in filters.items() if name not in early}
        ledger = Ledger()
        documents = self._start(table)
        read = len(documents)
        urls = {document.url for document in documents}
        documents = run_filters(early, documents, ledger, config.max_error_rate)
        documents = self._extract(config, ctx, table, documents, ledger)
        with ctx.progress("filtering", None) as tick:
            documents = run_filters(late, documents, ledger, config.max_error_rate, tick)
        if read != len(documents) + len(ledger.rows):
            raise StageError(f"{ctx.step}: {read} documents were read, but {len(documents)} kept and {len(ledger.rows)} dropped; "
                             "a filter loses documents. Take filters out one by one to find it, and report it")
        if not documents:
            raise StageError(f"{ctx.step}: no document is left of {read}. {_worst(ledger.funnel())}. Loosen that rule, or try the "
                             f"preset {ctx.step}=short for short pages or {ctx.step}=none for extraction alone")
        rows, skipped = _rows(config, documents)
        if not rows:
            raise StageError(f"{ctx.step}: all {skipped} paragraphs have fewer than min_paragraph_words={config.min_paragraph_words} "
                             f"words; lower it, or keep pages whole with {ctx.step}.split=none")
        if config.split == "paragraph":
            ledger.open("split.min_paragraph_words", "split", len(rows) + skipped)
            ledger.by_rule["split.min_paragraph_words", "split.min_paragraph_words"] = skipped
        tables.save(rows, ctx.out / "data", COLUMNS)
        tables.save(ledger.rows, ctx.out / "dropped", DROPPED)
        tables.write_json(ctx.out / "funnel.json", ledger.funnel())
        metrics = {"read": read, "kept": len(documents), "dropped": len(ledger.rows), "documents": len(rows),
                   "paragraphs_skipped": skipped, "characters": sum(len(row["text"]) for row in rows)}
        families = {name: getattr(each, "family", "") for name, each in filters.items()}
        return metrics | _gold(ctx, source, ledger.rows, urls, families, {document.url: document.text for document in documents})

    @staticmethod
    def _start(table: Any) -> list[Any]:
        from llmstages.plugins.corpus.filter import Document

        return [Document(id, url, row=row) for row, (id, url) in enumerate(zip(table["id"], table["url"], strict=True))]

    @staticmethod
    def _extract(config: Config, ctx: Context, table: Any, documents: list[Any], ledger: Any) -> list[Any]:
        """Fill in the texts; documents that give none are dropped by a rule of kind "extract"."""
        from llmstages.plugins.corpus.extract import Settings
        from llmstages.plugins.corpus.filter import Drop
        from llmstages.plugins.corpus.pool import extract_all

        settings = Settings(**{field.name: getattr(config, field.name) for field in dc.fields(Settings)})

        def jobs() -> Iterator[tuple[bytes, str, str]]:
            for document in documents:
                row = table[document.row]
                yield row["body"] or b"", row["media"], row.get("charset") or ""

        kept = []
        ledger.open("extract", "extract", len(documents))
        with ctx.progress("extracting", len(documents)) as tick:
            results = extract_all(jobs(), len(documents), settings, config.workers)
            for document, result in zip(documents, results, strict=True):
                tick(1)
                if result.rule:
                    ledger.drop("extract", document, Drop(result.rule, result.value, result.limit), result.excerpt)
                    continue
                document.text = result.text
                kept.append(document)
        return kept


def _rows(config: Web.Config, documents: list[Any]) -> tuple[list[dict[str, str]], int]:
    """Rows of the corpus, and the number of paragraphs that were too short to be one."""
    if config.split == "none":
        return [{"id": d.id, "url": d.url, "text": d.text} for d in documents], 0
    rows, skipped = [], 0
    for document in documents:
        for number, line in enumerate(document.lines):
            if len(line.split()) < config.min_paragraph_words:
                skipped += 1
            else:
                rows.append({"id": f"{document.id}#{number}", "url": document.url, "text": line})
    return rows, skipped


def _worst(funnel: list[dict[str, Any]]) -> str:
    worst = max(funnel, key=lambda row: row["dropped"])
    return f"The rule {worst['rule']} dropped most: {worst['dropped']} of the {worst['seen']} it saw"


def _gold(ctx: Context, source: Any, dropped: list[dict[str, str]], urls: set[str], families: Mapping[str, str],
          texts: Mapping[str, str]) -> dict[str, float]:
    """Write gold.json and return its overall figures, if the documents carry gold labels.

    texts: url -> text of the pages kept. families: filter -> the gold rule it serves, where it is not the filter's own name.
    """
    labels = tables.read_lines(source / "gold.jsonl")
    if not labels:
        return {}
    from llmstages.plugins.corpus.gold import measure, personal_removed

    by_url = {}
    for row in dropped:
        name = row["rule"].removeprefix("extract.").split(".")[0]
        by_url[row["url"]] = families.get(name) or name
    result = measure(labels, by_url, urls)
    tables.write_json(ctx.out / "gold.json", result)
    overall = result["overall"]
    found = {"precision": overall["precision"], "recall": overall["recall"], "personal_removed": personal_removed(labels, texts)}
    return {f"gold_{name}": value for name, value in found.items() if value is not None}
