"""What one process does to a batch of documents: extraction and all filters, in one go.

Group filters (duplicates) need all documents, so here they only sign them. The filters after a
group work as if it had found no duplicate, and resolve.py settles its verdicts afterwards, by the
order of the filters. So words are computed once, texts cross a process boundary once, and only a
group that edits (line_dedup) needs a second pass. A batch goes in, an Arrow table comes out: the
same ``FilterPipeline`` runs under every engine.
"""

from __future__ import annotations

import dataclasses as dc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.data.filtering import Check, Document, Drop, Edit, Verdict
from llmstages.data.readers import clean
from llmstages.data.words import splitter
from llmstages.plugins.corpus import extraction_pool
from llmstages.plugins.corpus.extraction import Extracted, Settings, extract

BATCH = 64  # documents handed to the filters at a time
EXCERPT = 200  # characters of a dropped document that are shown
KEPT = -1
FEW = 7  # a filter may fail on all documents of a batch that is as small as this


@dc.dataclass
class Outcome:
    """What happened to a document so far.

    Attributes:
        at: the position of the component that dropped it, KEPT while none did.
        drop: why it was dropped.
        excerpt: the beginning of a dropped document.
        edits: (position, places changed) of the filters that edited it.
        checks: (position, Check) of the filters that measured it.
        signatures: position of a group -> what it remembers of the document.
    """

    at: int = KEPT
    drop: Drop = Drop("", "", "")
    excerpt: str = ""
    edits: list[tuple[int, int]] = dc.field(default_factory=list)
    checks: list[tuple[int, Check]] = dc.field(default_factory=list)
    signatures: dict[int, bytes] = dc.field(default_factory=dict)


@dc.dataclass(frozen=True)
class Component:
    """The extraction, or a filter with its spec. kind: "extract", "judge", "edit" or "group"."""

    name: str
    kind: str
    spec: Mapping[str, Any]


@dc.dataclass(frozen=True)
class FilterPipeline:
    """One pass over the documents, as a function from a batch to its outcomes. Pickles.

    Attributes:
        components: all of them, in the order they run.
        last: where the pass ends: the position of the next group that edits, or the end.
        first: where the pass begins.
        finding: what the group that edits at ``first`` found.
        settings: of the extraction.
        words, language: how texts are cut into words.
        documents_language: of all documents, where it is known before; "" otherwise.
        annotate: measure everything and let only the extraction drop.
        sources: folders of the artifacts wired as evaluations.
        progress: a file that grows by a byte for each document; "" for none.
    """

    components: tuple[Component, ...]
    last: int
    first: int = 0
    finding: Any = None
    settings: Settings = Settings()
    words: str = "fast"
    language: str = "en"
    documents_language: str = ""
    annotate: bool = False
    sources: tuple[Path, ...] = ()
    progress: str = ""

    @property
    def settled(self) -> list[int]:
        """Positions of the groups whose verdict this pass prepares."""
        positions = range(self.first, self.last)
        groups = [at for at in positions if self.components[at].kind == "group"]
        return [at for at in groups if at != self.edited]

    @property
    def signed(self) -> list[int]:
        """Positions of the groups that sign in this pass.

        These are the settled ones, and the group that edits in the next pass.
        """
        if self.last == len(self.components):
            return self.settled
        return [*self.settled, self.last]

    @property
    def edited(self) -> int:
        """Position of the group that edits in this pass, or KEPT."""
        return self.first if self.components[self.first].kind == "group" else KEPT

    @property
    def hard(self) -> frozenset[int]:
        """Positions that drop even if filters only annotate: no text, no document."""
        positions = enumerate(self.components)
        return frozenset(at for at, component in positions if component.kind == "extract")

    def preload(self) -> None:
        """Import in this process what processes forked from it will need."""
        for component in self.components:
            if component.kind == "extract":
                load_component("extractors", component.spec)

    def schema(self) -> Any:
        """Arrow schema of the outcomes."""
        import pyarrow as pa

        text = pa.string()
        edit = pa.struct([("at", pa.int32()), ("count", pa.int64())])
        check = pa.struct(
            [
                ("at", pa.int32()),
                ("rule", text),
                ("value", pa.float64()),
                ("least", pa.float64()),
                ("most", pa.float64()),
            ]
        )
        return pa.schema(
            [
                ("row", pa.int64()),
                ("id", text),
                ("url", text),
                ("text", text),
                ("at", pa.int32()),
                ("rule", text),
                ("value", text),
                ("limit", text),
                ("excerpt", text),
                ("edits", pa.list_(edit)),
                ("checks", pa.list_(check)),
                *((f"sign{at}", pa.binary()) for at in self.signed),
            ]
        )

    def __call__(self, table: Any, rows: Sequence[int]) -> Any:
        """Outcomes (pa.Table) of documents.

        Args:
            table: pa.Table with id, url and either body, media and charset, or text and row.
            rows: their rows in the documents artifact, for a table without row.
        """
        columns = table.to_pydict()
        texts = columns.get("text")
        words = splitter(self.words, self.language)
        # Only here, since codes must stay valid for the whole batch.
        words.trim()
        keys = zip(columns["id"], columns["url"], columns.get("row") or rows, strict=True)
        documents = [
            Document(id, url, texts[i] if texts else "", row, words, self.documents_language)
            for i, (id, url, row) in enumerate(keys)
        ]
        outcomes = [Outcome() for _ in documents]
        batch = Batch(self, documents, outcomes, columns)
        for at in range(self.first, min(self.last + 1, len(self.components))):
            batch.apply(at)
        if self.progress:
            with Path(self.progress).open("ab") as file:
                file.write(b"." * len(documents))
        return self._table(documents, outcomes)

    def _table(self, documents: Sequence[Document], outcomes: Sequence[Outcome]) -> Any:
        import pyarrow as pa

        hard, schema = self.hard, self.schema()
        # The texts of dropped documents go no further; their excerpts do.
        texts = []
        for document, outcome in zip(documents, outcomes, strict=True):
            stays = outcome.at == KEPT or (self.annotate and outcome.at not in hard)
            texts.append(document.text if stays else "")
        columns = {
            "row": [document.row for document in documents],
            "id": [document.id for document in documents],
            "url": [document.url for document in documents],
            "text": texts,
            "at": [outcome.at for outcome in outcomes],
            "rule": [outcome.drop.rule for outcome in outcomes],
            "value": [shown(outcome.drop.value) for outcome in outcomes],
            "limit": [outcome.drop.limit for outcome in outcomes],
            "excerpt": [outcome.excerpt for outcome in outcomes],
            "edits": [_edit_rows(outcome) for outcome in outcomes],
            "checks": [_check_rows(outcome) for outcome in outcomes],
        }
        for at in self.signed:
            columns[f"sign{at}"] = [outcome.signatures.get(at) for outcome in outcomes]
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        return pa.table(arrays, schema=schema)


def _edit_rows(outcome: Outcome) -> list[dict[str, int]]:
    return [{"at": at, "count": count} for at, count in outcome.edits]


def _check_rows(outcome: Outcome) -> list[dict[str, Any]]:
    rows = []
    for at, check in outcome.checks:
        row = {"at": at, "rule": check.rule, "value": float(check.value)}
        rows.append(row | {"least": check.least, "most": check.most})
    return rows


_filters: dict[tuple[int, int, str], Any] = {}


def open_filter(pipeline: FilterPipeline, at: int) -> Any:
    """The filter at a position, made once in each process."""
    component = pipeline.components[at]
    # A forked process must not share an open filter, such as a model, with its parent.
    key = (os.getpid(), at, repr((component, pipeline.sources)))
    if key not in _filters:
        made = load_component("filters", component.spec)
        if getattr(made, "wants", "") == "evaluations":
            made.open(pipeline.sources)
        _filters[key] = made
    return _filters[key]


def shown(value: float | str) -> str:
    """A measured value as text; numbers to four digits, equal on every machine."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dc.dataclass
class Batch:
    """One batch of documents on its way through the pipeline."""

    pipeline: FilterPipeline
    documents: list[Document]
    outcomes: list[Outcome]
    columns: Mapping[str, list[Any]]

    def apply(self, at: int) -> None:
        """Take the documents that are left through one component."""
        component = self.pipeline.components[at]
        alive = self._alive()
        if not alive:
            return
        if component.kind == "extract":
            self._extract(at, alive)
            return
        filter = open_filter(self.pipeline, at)
        documents = [self.documents[i] for i in alive]
        if at in self.pipeline.signed:
            # Its verdict needs all documents: resolve.py asks for it after the pass.
            signatures = _sign(component.name, filter, documents)
            for i, signature in zip(alive, signatures, strict=True):
                self.outcomes[i].signatures[at] = signature
            return
        if self.pipeline.annotate and hasattr(filter, "measure"):
            for i, checks in zip(alive, filter.measure(documents), strict=True):
                self.outcomes[i].checks += [(at, check) for check in checks]
        if at == self.pipeline.edited:
            verdicts = filter.judge(documents, self.pipeline.finding)
        else:
            verdicts = judge(component.name, filter, documents)
        for i, verdict in zip(alive, verdicts, strict=True):
            if isinstance(verdict, Drop):
                self._drop(i, at, verdict)
            elif isinstance(verdict, Edit):
                self.outcomes[i].edits.append((at, verdict.count))
                self.documents[i].text = verdict.text

    def _alive(self) -> list[int]:
        """Indices of the documents that the next component sees."""
        annotate, hard = self.pipeline.annotate, self.pipeline.hard
        alive = []
        for i, outcome in enumerate(self.outcomes):
            if outcome.at == KEPT or (annotate and outcome.at not in hard):
                alive.append(i)
        return alive

    def _extract(self, at: int, alive: Sequence[int]) -> None:
        """Pages go to the extraction process; other texts are only decoded, in this process."""
        columns, settings = self.columns, self.pipeline.settings
        charsets = columns.get("charset") or [""] * len(columns["id"])
        jobs: dict[int, extraction_pool.Job] = {}
        for i in alive:
            body, media = columns["body"][i] or b"", columns["media"][i]
            jobs[i] = (body, media, charsets[i] or "", columns["url"][i])
        pages = [i for i in alive if columns["media"][i] == "text/html"]
        results: dict[int, Extracted] = {}
        if pages:
            spec = tuple(sorted(self.pipeline.components[at].spec.items()))
            page_jobs = [jobs[i] for i in pages]
            extracted = extraction_pool.shared().run(page_jobs, settings, spec)
            results = dict(zip(pages, extracted, strict=True))
        for i in alive:
            result = results[i] if i in results else extract(*jobs[i], settings, None)
            if result.rule:
                drop = Drop(result.rule, result.value, result.limit)
                self._drop(i, at, drop, result.excerpt)
            else:
                self.documents[i].text = result.text

    def _drop(self, i: int, at: int, drop: Drop, excerpt: str = "") -> None:
        outcome = self.outcomes[i]
        if outcome.at == KEPT:
            outcome.at, outcome.drop = at, drop
            outcome.excerpt = excerpt or clean(self.documents[i].text[:EXCERPT])
        # While annotating, a filter that runs before the extraction may have been first.
        if at in self.pipeline.hard:
            outcome.at, outcome.drop = at, drop


def judge(name: str, filter: Any, documents: Sequence[Document]) -> Sequence[Verdict]:
    """The verdicts of one filter.

    An exception costs only the document that causes it.

    Raises:
        StageError: the filter fails on all documents, or does not give one verdict for each.
    """
    try:
        verdicts = filter.judge(documents)
    except StageError:
        raise
    except Exception as error:
        verdicts = [_judge_alone(filter, document) for document in documents]
        failed = [v for v in verdicts if isinstance(v, Drop) and v.rule == "error"]
        if len(failed) == len(documents) > FEW:
            raise StageError(
                f"filter {name} failed on {len(failed)} of {len(documents)} documents "
                f"(first: {failed[0].value}); fix it, or remove it with ~corpus.filters.{name}"
            ) from error
    if len(verdicts) != len(documents):
        raise StageError(
            f"filter {name} gave {len(verdicts)} verdicts for {len(documents)} documents; "
            "it must give one for each"
        )
    for verdict in verdicts:
        if verdict is not None and not isinstance(verdict, (Drop, Edit)):
            raise StageError(
                f"filter {name} gave a verdict of type {type(verdict).__name__}; "
                "it must give None, a Drop or an Edit for each document"
            )
    return verdicts


def _judge_alone(filter: Any, document: Document) -> Verdict:
    try:
        return filter.judge([document])[0]
    except Exception as error:  # counted and written to dropped/ with its text
        message = f"{type(error).__name__}: {error}"[:EXCERPT]
        return Drop("error", message, "a verdict without error")


def _sign(name: str, filter: Any, documents: Sequence[Document]) -> Sequence[bytes]:
    try:
        return filter.sign(documents)
    except StageError:
        raise
    except Exception as error:
        raise StageError(
            f"filter {name} failed while it signed {len(documents)} documents "
            f"({type(error).__name__}: {error}); remove it with ~corpus.filters.{name}, "
            "or report it to its author"
        ) from error
