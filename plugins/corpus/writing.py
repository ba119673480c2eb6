"""Writes the corpus artifact: data/, dropped/, edits/, and annotations/ with mode=annotate."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.corpus.filter_pipeline import KEPT, FilterPipeline
from llmstages.plugins.corpus.resolve import Funnel, PassResult, settled_documents

COLUMNS = {"id": "string", "url": "string", "text": "string"}
EDIT_COLUMNS = {"id": "string", "url": "string", "filter": "string", "count": "int64"}
CHECK_COLUMNS = {
    "id": "string",
    "url": "string",
    "filter": "string",
    "rule": "string",
    "value": "float64",
    "least": "float64",
    "most": "float64",
}
SURVIVOR_COLUMNS = {"row": "int64", **COLUMNS}
MAX_PRINTED_RULES = 4
MAX_SWEPT_VALUES = 200_000  # values of a rule from which its quantiles are computed


class CorpusWriter:
    """The files of a corpus while it is made, and the counts of what went into them.

    Args:
        pipeline: of any pass.
        out: the folder of the artifact.
        split, min_paragraph_words: as in the stage's Config.
    """

    def __init__(
        self, pipeline: FilterPipeline, out: Path, split: str, min_paragraph_words: int
    ) -> None:
        self.pipeline = pipeline
        self.out = out
        self.split = split == "paragraph"
        self.min_words = min_paragraph_words
        annotate = {"verdict": "string"} if pipeline.annotate else {}
        self.data = tables.Writer(out / "data", COLUMNS | annotate)
        self.dropped = tables.Writer(out / "dropped", tables.DROPPED_COLUMNS)
        self.edits = tables.Writer(out / "edits", EDIT_COLUMNS)
        self.checks: tables.Writer | None = None
        if pipeline.annotate:
            self.checks = tables.Writer(out / "annotations", CHECK_COLUMNS)
        self.sweep: dict[tuple[int, str], dict[str, Any]] = {}
        self.kept = self.skipped = self.characters = 0
        self.replaced = self.with_replaced = 0  # characters U+FFFD, and kept documents with any
        self.rule_by_url: dict[str, str] = {}  # of the dropped documents

    def write_pass(
        self, result: PassResult, funnel: Funnel, work: Path, final: bool
    ) -> tuple[list[Path], int]:
        """Write what a pass dropped, and what it left: as corpus, or for the next pass.

        Returns:
            The files and the number of documents for the next pass.
        """
        survivors = None if final else tables.Writer(work / "survivors", SURVIVOR_COLUMNS)
        annotate, hard = self.pipeline.annotate, self.pipeline.hard
        for document in settled_documents(result, funnel):
            if document["at"] == KEPT or (annotate and document["at"] not in hard):
                if survivors:
                    survivors.write(document)
                else:
                    self._keep(document)
                if document["edits"]:
                    self._write_edits(document)
            else:
                self.dropped.write(document)
                self.rule_by_url[document["url"]] = document["rule"]
            if self.checks:
                self._write_checks(document, self.checks)
        if survivors is None:
            return [], 0
        survivors.close()
        return sorted((work / "survivors").glob("*.arrow")), survivors.rows

    def _keep(self, document: dict[str, Any]) -> None:
        self.kept += 1
        replaced = document["text"].count("\ufffd")
        self.replaced += replaced
        self.with_replaced += bool(replaced)
        if not self.split:
            self.characters += len(document["text"])
            self.data.write({**document, "verdict": document["rule"]})
            return
        lines = [line.strip() for line in document["text"].split("\n")]
        for number, line in enumerate(line for line in lines if line):
            if len(line.split()) < self.min_words:
                self.skipped += 1
                continue
            self.characters += len(line)
            paragraph = {"id": f"{document['id']}#{number}", "url": document["url"]}
            self.data.write({**paragraph, "text": line, "verdict": document["rule"]})

    def _write_edits(self, document: dict[str, Any]) -> None:
        for edit in document["edits"]:
            name = self.pipeline.components[edit["at"]].name
            self.edits.write({**document, "filter": name, "count": edit["count"]})

    def _write_checks(self, document: dict[str, Any], writer: tables.Writer) -> None:
        for check in document["checks"]:
            name = self.pipeline.components[check["at"]].name
            writer.write({**check, "id": document["id"], "url": document["url"], "filter": name})
            rule = self.sweep.setdefault(
                (check["at"], check["rule"]),
                {
                    "filter": name,
                    "rule": check["rule"],
                    "least": check["least"],
                    "most": check["most"],
                    "values": [],
                },
            )
            if len(rule["values"]) < MAX_SWEPT_VALUES:
                rule["values"].append(check["value"])

    def close(self, ctx: Context, read: int, funnel: Funnel) -> dict[str, float]:
        """Finish all files and return the counts.

        Raises:
            StageError: documents were lost, or nothing is left.
        """
        self._check_counts(ctx.step, read, funnel)
        for writer in (self.data, self.dropped, self.edits, self.checks):
            if writer:
                writer.close()
        rows = funnel.rows()
        self._print_strictest(ctx, read, rows)
        if self.replaced:
            ctx.say(
                f"{ctx.step}: {self.replaced} characters of {self.with_replaced} kept documents "
                "could not be decoded and are U+FFFD"
            )
        if self.split:
            rows.append(
                {
                    "rule": "split.min_paragraph_words",
                    "kind": "split",
                    "seen": self.data.rows + self.skipped,
                    "dropped": self.skipped,
                    "edited": 0,
                }
            )
        tables.write_json(self.out / "funnel.json", rows)
        if self.checks:
            sweep = [_quantiles(rule) for _, rule in sorted(self.sweep.items())]
            tables.write_json(self.out / "sweep.json", sweep)
        return {
            "read": read,
            "kept": self.kept,
            "dropped": self.dropped.rows,
            "documents": self.data.rows,
            "paragraphs_skipped": self.skipped,
            "characters": self.characters,
            "replaced": self.replaced,
        }

    def _check_counts(self, step: str, read: int, funnel: Funnel) -> None:
        if read != self.kept + self.dropped.rows:
            raise StageError(
                f"{step}: {read} documents were read, but {self.kept} kept and "
                f"{self.dropped.rows} dropped; a filter loses documents. Remove filters one by "
                "one to find it, and report it"
            )
        if not self.kept:
            raise StageError(
                f"{step}: no document is left of {read}. {_strictest(funnel.rows())}. Loosen that "
                f"rule, or try the preset {step}=short for short pages, {step}=docs for technical "
                f"text or {step}=none for extraction alone"
            )
        if not self.data.rows:
            raise StageError(
                f"{step}: all {self.skipped} paragraphs have fewer than min_paragraph_words="
                f"{self.min_words} words; lower it, or keep pages whole with {step}.split=none"
            )

    def _print_strictest(self, ctx: Context, read: int, rows: Sequence[dict[str, Any]]) -> None:
        dropping = [row for row in rows if row["dropped"]]
        if not dropping:
            return
        dropping.sort(key=lambda row: (-row["dropped"], row["rule"]))
        rules = [f"{row['rule']} ({row['dropped']})" for row in dropping[:MAX_PRINTED_RULES]]
        ctx.say(
            f"{ctx.step}: {self.dropped.rows} of {read} dropped, most by {', '.join(rules)}; "
            f"of one page: llmstages show {ctx.step} --url URL"
        )


def _quantiles(rule: dict[str, Any]) -> dict[str, Any]:
    """The values of a rule as 101 quantiles, from which a plot shows what any limit would drop."""
    import numpy as np

    values = np.quantile(np.asarray(rule.pop("values")), np.linspace(0, 1, 101))
    return {**rule, "quantiles": [float(f"{value:.6g}") for value in values]}


def _strictest(rows: Sequence[dict[str, Any]]) -> str:
    row = max(rows, key=lambda row: row["dropped"])
    return f"The rule {row['rule']} dropped most: {row['dropped']} of the {row['seen']} it saw"


@contextmanager
def progress_of(ctx: Context, file: Path, total: int, description: str) -> Iterator[None]:
    """Progress of work done in other processes, which add a byte for each document to ``file``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    done = threading.Event()
    with ctx.progress(description, total) as tick:
        seen = 0

        def update() -> None:
            nonlocal seen
            size = file.stat().st_size
            tick(size - seen)
            seen = size

        def update_until_done() -> None:
            while not done.wait(0.3):
                update()

        thread = threading.Thread(target=update_until_done, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            update()
