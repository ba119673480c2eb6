"""Web pages to a training corpus: extract the text, filter, remove duplicates and personal data.

The order of the filters is the order of the mapping; filters that need the URL alone run before extraction. Nothing is
lost in silence: what is read is kept or stands in ``dropped/`` with the rule, the value and the limit, and the stage
fails if the two do not add up. Memory does not grow with the texts: they stay in Arrow files from beginning to end.
"""

from __future__ import annotations

import dataclasses as dc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.core.registry import component_config, entries
from llmstages.core.stage import Context, option
from llmstages.data import tables

DEFAULT = (
    "url",
    "language",
    "gopher_repetition",
    "gopher_quality",
    "exact_dedup",
    "minhash_dedup",
    "pii",
)
FEW, SMALL = (
    200,
    20_000_000,
)  # documents and bytes; with less than this, a second process costs more than it saves


class Web:
    """Extraction, then filters in the order given; what is dropped, edited and why is written down."""

    @dc.dataclass(frozen=True)
    class Config:
        filters: dict[str, Any] = option(help="name -> {use: filter, ...its fields}", factory=dict)
        order: tuple[str, ...] = option(
            (),
            "filters that run first, in this order; the others follow in the order of ``filters``",
        )
        extractors: dict[str, Any] = option(
            help="html: what takes the text from a page (trafilatura, resiliparse or plain)",
            factory=lambda: {"html": {"use": "trafilatura"}},
        )
        words: str = option(
            "fast",
            "how texts are cut into words: fast; spacy, for the decisions of datatrove; whitespace, for technical text",
            choices=("fast", "spacy", "whitespace"),
        )
        words_language: str = option("en", "ISO code of the language for words=spacy")
        mode: str = option(
            "drop",
            "annotate: keep every document and write down every value of every rule (annotations/, sweep.json)",
            choices=("drop", "annotate"),
        )
        seconds: float = option(10.0, "CPU seconds one page may take to extract")
        memory_mb: int = option(
            2048, "memory an extraction process may take before the page is dropped"
        )
        max_bytes: int = option(
            10_000_000, "pages larger than this many bytes are dropped unparsed"
        )
        max_characters: int = option(
            1_000_000, "texts longer than this many characters are dropped"
        )
        max_word: int = option(
            100_000, "texts with more characters than this between two blanks are dropped"
        )
        max_depth: int = option(
            1000, "pages with more elements inside each other are dropped unparsed"
        )
        max_replaced: float = option(
            0.01, "largest share of U+FFFD (undecodable) characters in a text"
        )
        split: str = option(
            "none",
            "paragraph: every line of a kept page becomes a document of its own, after all filters",
            choices=("none", "paragraph"),
        )
        min_paragraph_words: int = option(
            0,
            "with split=paragraph: shorter paragraphs (headings) are skipped; unit: words between blanks",
        )
        max_error_rate: float = option(
            0.01, "share of documents on which a filter may fail before the stage stops"
        )
        engine: str = option(
            "datasets",
            "what spreads the work: datasets (this machine), or datatrove (its executors, many machines)",
            choices=("datasets", "datatrove"),
            identity=False,
        )
        engine_options: dict[str, str] = option(
            help="for engine=datatrove: executor=local|slurm|ray, tasks, and what that executor takes",
            factory=dict,
            identity=False,
        )
        workers: int = option(
            0, "processes; 0: one a CPU, and one alone for little work", identity=False
        )

    inputs = {"documents": "documents", "evaluations": "problems|dialogues|preferences*"}
    output = "corpus"
    version = "3"
    components = {"filters": DEFAULT, "extractors": {"html": "trafilatura"}}

    def estimate(
        self, config: Config, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, float]:
        """At most as many documents as come in; what the filters leave is known once they have run."""
        return {
            name: value
            for facts in known["documents"]
            for name, value in facts.items()
            if name == "documents"
        }

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        from llmstages.plugins.corpus import engines
        from llmstages.plugins.corpus.filter_pipeline import KEPT
        from llmstages.plugins.corpus.resolve import Ledger, compare, settle
        from llmstages.plugins.corpus.writing import Writing, watched

        source = ctx.one("documents").path
        files, read = sorted((source / "data").glob("*.arrow")), len(tables.load(source / "data"))
        chain, ends = _chain(config, ctx)
        ledger, writing, rows = (
            Ledger(chain),
            Writing(chain, ctx.out, config.split, config.min_paragraph_words),
            read,
        )
        for number, last in enumerate(ends):
            work = ctx.work / f"pass-{number}"
            chain = dc.replace(chain, last=last, progress=str(work / "progress"))
            with watched(
                ctx,
                work / "progress",
                rows,
                "extracting and filtering"
                if number == 0
                else f"filtering again after {chain.parts[chain.first].name}",
            ):
                outcomes = engines.run(
                    config.engine,
                    chain,
                    files,
                    rows,
                    work,
                    _workers(config, files, rows),
                    config.engine_options,
                )
            made = settle(chain, outcomes, work)
            ledger.pass_(made)
            files, rows = writing.take(made, ledger, work, last == ends[-1])
            if last != ends[-1]:
                chain = dc.replace(
                    chain, first=last, finding=compare(made, last, made.at == KEPT, work)
                )
        ledger.check(config.max_error_rate)
        metrics = writing.close(ctx, read, ledger)
        return metrics | _gold(ctx, source, writing.drops, config)


def _chain(config: Web.Config, ctx: Context) -> tuple[Any, list[int]]:
    """The chain, and where its passes end."""
    from llmstages.plugins.corpus.extraction import Settings
    from llmstages.plugins.corpus.filter_pipeline import Chain, Part

    if set(config.extractors) != {"html"}:
        raise StageError(
            f"{ctx.step}.extractors needs one member, html; it has {', '.join(config.extractors) or 'none'}. "
            f"Choose with extractors@{ctx.step}.extractors.html=resiliparse"
        )
    early, late = [], []
    for name, spec in _ordered(config, ctx.step):
        cls, _ = component_config("filters", spec)
        if getattr(cls, "wants", "") == "evaluations" and not (
            ctx.many("evaluations") or spec.get("path")
        ):
            raise StageError(
                f"{ctx.step}.filters.{name} needs texts to look for: wire the steps that evaluate, "
                f"steps.{ctx.step}.evaluations=[problems] (a step that stands before {ctx.step} in the recipe), or give "
                f"{ctx.step}.filters.{name}.path=FILE"
            )
        if getattr(cls, "edits", False) and config.mode == "annotate":
            raise StageError(
                f"{ctx.step}.mode=annotate keeps texts as they are, but {name} edits by what all documents have; "
                f"take it out with ~{ctx.step}.filters.{name}"
            )
        (early if getattr(cls, "early", False) else late).append(
            (Part(name, cls.kind, dict(spec)), getattr(cls, "edits", False))
        )
    steps = [*early, (Part("extract", "extract", dict(config.extractors["html"])), False), *late]
    parts = tuple(part for part, _ in steps)
    ends = [at for at, (part, edits) in enumerate(steps) if edits and part.kind == "group"] + [
        len(parts)
    ]
    settings = Settings(
        **{field.name: getattr(config, field.name) for field in dc.fields(Settings)}
    )
    return Chain(
        parts,
        ends[0],
        settings=settings,
        words=config.words,
        language=config.words_language,
        annotate=config.mode == "annotate",
        sources=tuple(artifact.path for artifact in ctx.many("evaluations")),
    ), ends


def _ordered(config: Web.Config, step: str) -> list[tuple[str, Any]]:
    """Filters in the order they run."""
    for name in config.order:
        if name not in config.filters and name not in entries(
            "filters"
        ):  # one taken out may still be named
            raise StageError(
                f"{step}.order names {name!r}, which is no filter.{near(name, config.filters)} There are: {', '.join(config.filters)}"
            )
    first = [name for name in config.order if name in config.filters]
    return [
        (name, config.filters[name])
        for name in [*first, *(name for name in config.filters if name not in first)]
    ]


def _workers(config: Web.Config, files: Sequence[Path], rows: int) -> int:
    if config.workers:
        return config.workers
    size = sum(file.stat().st_size for file in files)
    return 1 if rows < FEW or size < SMALL and rows < 20 * FEW else os.cpu_count() or 1


def _gold(
    ctx: Context, source: Path, drops: Mapping[str, str], config: Web.Config
) -> dict[str, float]:
    """Write gold.json and return its overall figures, if the documents carry gold labels. drops: url -> rule that dropped it."""
    labels = tables.read_lines(source / "gold.jsonl")
    if not labels:
        return {}
    from llmstages.plugins.corpus.gold import measure, personal_removed

    families = {
        name: getattr(component_config("filters", spec)[0], "family", "")
        for name, spec in config.filters.items()
    }
    by_url = {}
    for url, rule in drops.items():
        name = rule.removeprefix("extract.").split(".")[0]
        by_url[url] = families.get(name) or name
    result = measure(labels, by_url, set(tables.load(source / "data")["url"]))
    tables.write_json(ctx.out / "gold.json", result)
    overall = result["overall"]
    paragraphs: dict[str, list[str]] = {}  # one per page, several where pages are split
    for row in tables.load(ctx.out / "data"):
        paragraphs.setdefault(row["url"], []).append(row["text"] + "\n")
    texts = {url: "".join(parts) for url, parts in paragraphs.items()}
    found = {
        "precision": overall["precision"],
        "recall": overall["recall"],
        "personal_removed": personal_removed(labels, texts),
    }
    return {f"gold_{name}": value for name, value in found.items() if value is not None}
