"""Writes the corpus artifact, document by document: data/, dropped/, edits/, and annotations/ where nothing is dropped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.corpus.filter_pipeline import KEPT, Chain
from llmstages.plugins.corpus.resolve import Ledger, Outcomes, fates

COLUMNS = {"id": "string", "url": "string", "text": "string"}
DROPPED = {name: "string" for name in ("id", "url", "rule", "value", "limit", "excerpt")}
EDITED = {"id": "string", "url": "string", "filter": "string", "count": "int64"}
CHECKS = {
    "id": "string",
    "url": "string",
    "filter": "string",
    "rule": "string",
    "value": "float64",
    "least": "float64",
    "most": "float64",
}
MOST_SAID = 4  # rules named on the terminal
MOST_SWEPT = 200_000  # values of a rule that a sweep looks at
SURVIVORS = {"row": "int64", **COLUMNS}


class Writing:
    """The files of a corpus while it is made. ``split`` and ``min_paragraph_words`` as in the stage's Config."""

    def __init__(self, chain: Chain, out: Path, split: str, min_paragraph_words: int) -> None:
        self.chain, self.out, self.split, self.min_words = (
            chain,
            out,
            split == "paragraph",
            min_paragraph_words,
        )
        annotate = {"verdict": "string"} if chain.annotate else {}
        self.data = tables.Writer(out / "data", COLUMNS | annotate)
        self.dropped = tables.Writer(out / "dropped", DROPPED)
        self.edits = tables.Writer(out / "edits", EDITED)
        self.checks = tables.Writer(out / "annotations", CHECKS) if chain.annotate else None
        self.sweep: dict[tuple[int, str], dict[str, Any]] = {}
        self.kept = self.skipped = self.characters = 0
        self.drops: dict[str, str] = {}

    def take(
        self, made: Outcomes, ledger: Ledger, work: Path, final: bool
    ) -> tuple[list[Path], int]:
        """Write down a pass: what was dropped, and what is left, as corpus or as input of the next pass (its files and rows)."""
        survivors = None if final else tables.Writer(work / "survivors", SURVIVORS)
        for fate in fates(made, ledger):
            keep = fate["at"] == KEPT or self.chain.annotate and fate["at"] not in self.chain.hard
            if not keep:
                self.dropped.write(fate)
                self.drops[fate["url"]] = fate["rule"]
            elif survivors:
                survivors.write(fate)
            else:
                self._keep(fate)
            if keep and fate["edits"]:
                self._edited(fate)
            if self.checks:
                self._swept(fate)
        if survivors is None:
            return [], 0
        survivors.close()
        return sorted((work / "survivors").glob("*.arrow")), survivors.rows

    def _keep(self, fate: dict[str, Any]) -> None:
        self.kept += 1
        if not self.split:
            self.characters += len(fate["text"])
            self.data.write({**fate, "verdict": fate["rule"]})
            return
        for number, line in enumerate(
            line for line in map(str.strip, fate["text"].split("\n")) if line
        ):
            if len(line.split()) < self.min_words:
                self.skipped += 1
                continue
            self.characters += len(line)
            self.data.write(
                {
                    "id": f"{fate['id']}#{number}",
                    "url": fate["url"],
                    "text": line,
                    "verdict": fate["rule"],
                }
            )

    def _edited(self, fate: dict[str, Any]) -> None:
        for edit in fate["edits"]:
            self.edits.write(
                {**fate, "filter": self.chain.parts[edit["at"]].name, "count": edit["count"]}
            )

    def _swept(self, fate: dict[str, Any]) -> None:
        for check in fate["checks"]:
            name = self.chain.parts[check["at"]].name
            self.checks.write({**check, "id": fate["id"], "url": fate["url"], "filter": name})
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
            if len(rule["values"]) < MOST_SWEPT:
                rule["values"].append(check["value"])

    def close(self, ctx: Context, read: int, ledger: Ledger) -> dict[str, float]:
        """Finish all files, hold the balance and return the counts; StageError when nothing is left."""
        if read != self.kept + self.dropped.rows:
            raise StageError(
                f"{ctx.step}: {read} documents were read, but {self.kept} kept and {self.dropped.rows} dropped; "
                "a filter loses documents. Take filters out one by one to find it, and report it"
            )
        if not self.kept:
            raise StageError(
                f"{ctx.step}: no document is left of {read}. {_worst(ledger.funnel())}. Loosen that rule, or try the "
                f"preset {ctx.step}=short for short pages, {ctx.step}=docs for technical text or {ctx.step}=none for extraction alone"
            )
        if not self.data.rows:
            raise StageError(
                f"{ctx.step}: all {self.skipped} paragraphs have fewer than min_paragraph_words={self.min_words} "
                f"words; lower it, or keep pages whole with {ctx.step}.split=none"
            )
        if self.split:
            ledger.extra.append(
                {
                    "rule": "split.min_paragraph_words",
                    "kind": "split",
                    "seen": self.data.rows + self.skipped,
                    "dropped": self.skipped,
                    "edited": 0,
                }
            )
        for writer in filter(None, (self.data, self.dropped, self.edits, self.checks)):
            writer.close()
        funnel = ledger.funnel()
        tables.write_json(self.out / "funnel.json", funnel)
        if most := sorted(
            (row for row in funnel if row["dropped"] and row["kind"] != "split"),
            key=lambda row: (-row["dropped"], row["rule"]),
        )[:MOST_SAID]:
            ctx.say(
                f"{ctx.step}: {self.dropped.rows} of {read} dropped, most by "
                + ", ".join(f"{row['rule']} ({row['dropped']})" for row in most)
                + f"; of one page: llmstages show {ctx.step} --url URL"
            )
        if self.checks:
            tables.write_json(
                self.out / "sweep.json",
                [_quantiles(rule) for _, rule in sorted(self.sweep.items())],
            )
        return {
            "read": read,
            "kept": self.kept,
            "dropped": self.dropped.rows,
            "documents": self.data.rows,
            "paragraphs_skipped": self.skipped,
            "characters": self.characters,
        }


def _quantiles(rule: dict[str, Any]) -> dict[str, Any]:
    """The values of a rule as 101 quantiles, from which a plot tells what any other limit would drop."""
    import numpy as np

    values = np.quantile(np.asarray(rule.pop("values")), np.linspace(0, 1, 101))
    return {**rule, "quantiles": [float(f"{value:.6g}") for value in values]}


def _worst(funnel: Sequence[dict[str, Any]]) -> str:
    worst = max(funnel, key=lambda row: row["dropped"])
    return (
        f"The rule {worst['rule']} dropped most: {worst['dropped']} of the {worst['seen']} it saw"
    )


@contextmanager
def watched(ctx: Context, file: Path, total: int, what: str) -> Iterator[None]:
    """Progress of work done in other processes, which add a byte a document to ``file``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    done = threading.Event()
    with ctx.progress(what, total) as tick:
        seen = 0

        def look() -> None:
            nonlocal seen
            size = file.stat().st_size
            tick(size - seen)
            seen = size

        def watch() -> None:
            while not done.wait(0.3):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            look()
