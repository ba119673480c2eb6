"""Web pages to a training corpus: extract the text, filter, remove duplicates and personal data.

The order of the filters is the order of the mapping; filters that need the URL alone run before
extraction. Nothing is lost in silence: every document that is read is kept, or stands in
``dropped/`` with the rule, the value and the limit, and the stage fails if the two do not add up.
Memory does not grow with the texts: they stay in Arrow files from beginning to end.
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
# With less than this, a second process costs more than it saves.
FEW_DOCUMENTS = 200
SMALL_BYTES = 20_000_000


class Web:
    """Extraction, then filters in the order given; what is dropped or edited is recorded."""

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
            "how texts are cut into words: fast; spacy, for the decisions of datatrove; "
            "whitespace, for technical text",
            choices=("fast", "spacy", "whitespace"),
            needs={"spacy": ("spacy", "llmstages[spacy]")},
        )
        words_language: str = option("en", "ISO code of the language for words=spacy")
        mode: str = option(
            "drop",
            "annotate: keep every document and write every value of every rule "
            "(annotations/, sweep.json)",
            choices=("drop", "annotate"),
        )
        seconds: float = option(10.0, "CPU seconds that one page may take to extract", gt=0)
        memory_mb: int = option(
            2048,
            "megabytes that an extraction process may take before the page is dropped",
            ge=1,
        )
        max_bytes: int = option(
            10_000_000, "pages larger than this many bytes are dropped unparsed", ge=1
        )
        max_characters: int = option(
            1_000_000, "texts longer than this many characters are dropped", ge=1
        )
        max_word: int = option(
            100_000, "texts with more characters than this between two blanks are dropped", ge=1
        )
        max_depth: int = option(
            1000, "pages with more elements inside each other are dropped unparsed", ge=1
        )
        max_replaced: float = option(
            0.01, "largest share of U+FFFD (undecodable) characters in a text", ge=0, le=1
        )
        split: str = option(
            "none",
            "paragraph: every line of a kept page becomes a document, after all filters",
            choices=("none", "paragraph"),
        )
        min_paragraph_words: int = option(
            0,
            "with split=paragraph: shorter paragraphs (headings) are skipped; "
            "unit: words between blanks",
            ge=0,
        )
        max_error_rate: float = option(
            0.01, "share of documents on which a filter may fail before the stage stops", ge=0, le=1
        )
        engine: str = option(
            "datasets",
            "what spreads the work: datasets (this machine), or datatrove (its executors, "
            "many machines)",
            choices=("datasets", "datatrove"),
            needs={"datatrove": ("datatrove", "llmstages[datatrove]")},
            identity=False,
        )
        engine_options: dict[str, str] = option(
            help="for engine=datatrove: executor=local|slurm|ray, tasks, and the options of that "
            "executor",
            factory=dict,
            identity=False,
        )
        workers: int = option(
            0,
            "processes; 0: one for each CPU, and a single one for little work",
            ge=0,
            identity=False,
        )

    inputs = {"documents": "documents", "evaluations": "problems|dialogues|preferences*"}
    output = "corpus"
    version = "3"
    components = {"filters": DEFAULT, "extractors": {"html": "trafilatura"}}

    def estimate(
        self, config: Config, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, float]:
        """At most as many documents as come in; the filters decide how many are left."""
        estimates: dict[str, float] = {}
        for facts in known["documents"]:
            if "documents" in facts:
                estimates["documents"] = facts["documents"]
        return estimates

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        from llmstages.plugins.corpus import engines
        from llmstages.plugins.corpus.filter_pipeline import KEPT
        from llmstages.plugins.corpus.resolve import Funnel, compare, settle
        from llmstages.plugins.corpus.writing import CorpusWriter, progress_of

        source = ctx.one("documents").path
        files = sorted((source / "data").glob("*.arrow"))
        read = count = len(tables.load(source / "data"))
        pipeline, ends = _pipeline(config, ctx)
        for note in _language_notes(config):
            ctx.say(note)
        funnel = Funnel(pipeline)
        writer = CorpusWriter(pipeline, ctx.out, config.split, config.min_paragraph_words)
        for number, last in enumerate(ends):
            work = ctx.work / f"pass-{number}"
            progress = work / "progress"
            pipeline = dc.replace(pipeline, last=last, progress=str(progress))
            description = "extracting and filtering"
            if number > 0:
                description = f"filtering again after {pipeline.components[pipeline.first].name}"
            workers = _workers(config, files, count)
            with progress_of(ctx, progress, count, description):
                outcomes = engines.run(
                    config.engine, pipeline, files, count, work, workers, config.engine_options
                )
            result = settle(pipeline, outcomes, work)
            funnel.count_pass(result)
            final = last == ends[-1]
            files, count = writer.write_pass(result, funnel, work, final)
            if not final:
                finding = compare(result, last, result.at == KEPT, work)
                pipeline = dc.replace(pipeline, first=last, finding=finding)
        funnel.check_errors(config.max_error_rate)
        metrics = writer.close(ctx, read, funnel)
        return metrics | _gold(ctx, source, writer.rule_by_url, config)


def _pipeline(config: Web.Config, ctx: Context) -> tuple[Any, list[int]]:
    """The pipeline of the first pass, and the positions where the passes end."""
    from llmstages.plugins.corpus.extraction import Settings
    from llmstages.plugins.corpus.filter_pipeline import Component, FilterPipeline

    if set(config.extractors) != {"html"}:
        raise StageError(
            f"{ctx.step}.extractors needs one member, html; it has "
            f"{', '.join(config.extractors) or 'none'}. "
            f"Choose with extractors@{ctx.step}.extractors.html=resiliparse"
        )
    early: list[Component] = []
    late: list[Component] = []
    editing_groups: set[str] = set()
    for name, spec in _ordered(config, ctx.step):
        cls, _ = component_config("filters", spec)
        _check_filter(name, spec, cls, config, ctx)
        component = Component(name, cls.kind, dict(spec))
        if getattr(cls, "early", False):
            early.append(component)
        else:
            late.append(component)
        if cls.kind == "group" and getattr(cls, "edits", False):
            editing_groups.add(name)
    extraction = Component("extract", "extract", dict(config.extractors["html"]))
    components = (*early, extraction, *late)
    # An editing group ends a pass, since what follows it must see the edited texts.
    ends = []
    for at, component in enumerate(components):
        if component.kind == "group" and component.name in editing_groups:
            ends.append(at)
    ends.append(len(components))
    fields = [field.name for field in dc.fields(Settings)]
    pipeline = FilterPipeline(
        components,
        last=ends[0],
        settings=Settings(**{name: getattr(config, name) for name in fields}),
        words=config.words,
        language=config.words_language,
        documents_language=_only_language(config),
        annotate=config.mode == "annotate",
        sources=tuple(artifact.path for artifact in ctx.many("evaluations")),
    )
    return pipeline, ends


def _wanted_languages(config: Web.Config) -> Sequence[str] | None:
    """The languages that a filter of the step keeps; None if no filter looks at them."""
    for spec in config.filters.values():
        _, filter_config = component_config("filters", spec)
        if hasattr(filter_config, "languages"):
            return filter_config.languages
    return None


def _only_language(config: Web.Config) -> str:
    """The language of all documents that are kept, for filters that run before they are told it.

    In annotate mode nothing is dropped, so documents may be in any language.
    """
    languages = _wanted_languages(config)
    if not languages or len(languages) > 1 or config.mode != "drop":
        return ""
    return languages[0]


def _language_notes(config: Web.Config) -> list[str]:
    """What filters cannot do for the languages of this step."""
    languages = _wanted_languages(config)
    if languages is None:
        return []
    notes = []
    for name, spec in config.filters.items():
        cls, filter_config = component_config("filters", spec)
        language_note = getattr(cls, "language_note", None)
        note = language_note(filter_config, languages) if language_note else ""
        if note:
            notes.append(f"{name}: {note}")
    return notes


def _check_filter(name: str, spec: Any, cls: type, config: Web.Config, ctx: Context) -> None:
    """Raise StageError for a filter that cannot work in this step."""
    step = ctx.step
    wants_evaluations = getattr(cls, "wants", "") == "evaluations"
    if wants_evaluations and not ctx.many("evaluations") and not spec.get("path"):
        raise StageError(
            f"{step}.filters.{name} needs texts to look for: wire the steps that evaluate, "
            f"steps.{step}.evaluations=[problems] (a step that stands before {step} in the "
            f"recipe), or give {step}.filters.{name}.path=FILE"
        )
    if getattr(cls, "edits", False) and config.mode == "annotate":
        raise StageError(
            f"{step}.mode=annotate keeps texts as they are, but {name} edits them by what all "
            f"documents have; remove it with ~{step}.filters.{name}"
        )


def _ordered(config: Web.Config, step: str) -> list[tuple[str, Any]]:
    """Names and specs of the filters, in the order they run."""
    first = []
    for name in config.order:
        if name in config.filters:
            first.append(name)
        # The order may still name a known filter that an override removed.
        elif name not in entries("filters"):
            raise StageError(
                f"{step}.order names {name!r}, which is not a filter."
                f"{near(name, config.filters)} There are: {', '.join(config.filters)}"
            )
    others = [name for name in config.filters if name not in first]
    return [(name, config.filters[name]) for name in first + others]


def _workers(config: Web.Config, files: Sequence[Path], documents: int) -> int:
    if config.workers:
        return config.workers
    size = sum(file.stat().st_size for file in files)
    if documents < FEW_DOCUMENTS or (size < SMALL_BYTES and documents < 20 * FEW_DOCUMENTS):
        return 1
    return os.cpu_count() or 1


def _gold(
    ctx: Context, source: Path, rule_by_url: Mapping[str, str], config: Web.Config
) -> dict[str, float]:
    """Write gold.json and return its overall figures, if the documents carry gold labels.

    rule_by_url: the rule that dropped each document.
    """
    labels = tables.read_lines(source / "gold.jsonl")
    if not labels:
        return {}
    from llmstages.plugins.corpus.gold import measure, personal_removed

    families = {}
    for name, spec in config.filters.items():
        cls, _ = component_config("filters", spec)
        families[name] = getattr(cls, "family", "")
    family_by_url = {}
    for url, rule in rule_by_url.items():
        # Rules are FILTER.RULE, or extract.RULE, where the gold names the rule itself.
        name = rule.removeprefix("extract.").split(".")[0]
        family_by_url[url] = families.get(name) or name
    result = measure(labels, family_by_url, set(tables.load(source / "data")["url"]))
    tables.write_json(ctx.out / "gold.json", result)
    # One paragraph for each page, or several if pages are split.
    paragraphs: dict[str, list[str]] = {}
    for row in tables.load(ctx.out / "data"):
        paragraphs.setdefault(row["url"], []).append(row["text"] + "\n")
    texts = {url: "".join(parts) for url, parts in paragraphs.items()}
    metrics = {
        "precision": result["overall"]["precision"],
        "recall": result["overall"]["recall"],
        "personal_removed": personal_removed(labels, texts),
    }
    return {f"gold_{name}": value for name, value in metrics.items() if value is not None}
