"""What one process does to a batch of documents: extraction and all filters, in one go.

Group filters (duplicates) need all documents, so here they only sign them; what follows them is done as if nothing were a
duplicate, and settled afterwards (settling.py) by the order of the filters. So words are computed once, texts cross a
process boundary once, and only a group that edits (line_dedup) makes a second pass. Batch in, Arrow table out: the same
``Chain`` runs under every engine.
"""

from __future__ import annotations

import dataclasses as dc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.data.readers import clean
from llmstages.plugins.corpus import extraction_pool
from llmstages.plugins.corpus.extraction import Extracted, Settings, extract
from llmstages.data.filtering import Check, Document, Drop, Edit, Verdict
from llmstages.data.words import splitter

BATCH = 64
EXCERPT = 200
KEPT = -1


@dc.dataclass
class Fate:
    """What happened to a document so far. at: the position of the step that dropped it, KEPT while none did."""

    at: int = KEPT
    drop: Drop = Drop("", "", "")
    excerpt: str = ""
    edits: list[tuple[int, int]] = dc.field(default_factory=list)
    checks: list[tuple[int, Check]] = dc.field(default_factory=list)
    signatures: dict[int, bytes] = dc.field(default_factory=dict)


@dc.dataclass(frozen=True)
class Part:
    """One step of the chain: the extraction, or a filter with its spec."""

    name: str
    kind: str
    spec: Mapping[str, Any]


@dc.dataclass(frozen=True)
class Chain:
    """The parts from ``first`` up to ``last`` (the next group that edits, or the end), as a function from a batch to its outcomes. Pickles.

    finding: what the editing group at ``first`` found. sources: folders of evaluation steps. progress: a file that grows by
    a byte a document.
    """

    parts: tuple[Part, ...]
    last: int
    first: int = 0
    finding: Any = None
    settings: Settings = Settings()
    words: str = "fast"
    language: str = "en"
    annotate: bool = False
    sources: tuple[Path, ...] = ()
    progress: str = ""

    @property
    def settled(self) -> list[int]:
        """Positions of the groups whose verdict this pass prepares."""
        return [
            at
            for at in range(self.first, self.last)
            if self.parts[at].kind == "group" and at != self.edited
        ]

    @property
    def signed(self) -> list[int]:
        """Positions of the groups that sign in this pass: those, and the group that edits in the next one."""
        return [*self.settled, *([self.last] if self.last < len(self.parts) else [])]

    @property
    def edited(self) -> int:
        """Position of the group that edits in this pass, or KEPT."""
        return self.first if self.parts[self.first].kind == "group" else KEPT

    def preload(self) -> None:
        """Import in this process what processes forked from it will need."""
        for part in self.parts:
            if part.kind == "extract":
                load_component("extractors", part.spec)

    def schema(self) -> Any:
        """Arrow schema of the outcomes."""
        import pyarrow as pa

        text = pa.string()
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
                ("edits", pa.list_(pa.struct([("at", pa.int32()), ("count", pa.int64())]))),
                ("checks", pa.list_(check)),
                *((f"sign{at}", pa.binary()) for at in self.signed),
            ]
        )

    def __call__(self, table: Any, rows: Sequence[int]) -> Any:
        """Outcomes (pa.Table) of documents (pa.Table: id, url and body, media, charset or text)."""
        columns = table.to_pydict()
        texts = columns.get("text")
        words = splitter(self.words, self.language)
        words.trim()
        documents = [
            Document(id, url, texts[i] if texts else "", row, words)
            for i, (id, url, row) in enumerate(
                zip(columns["id"], columns["url"], columns.get("row") or rows, strict=True)
            )
        ]
        fates = [Fate() for _ in documents]
        work = Work(self, documents, fates, columns)
        for at in range(self.first, min(self.last + 1, len(self.parts))):
            work.step(at)
        if self.progress:
            with open(self.progress, "ab") as file:
                file.write(b"." * len(documents))
        return self._table(documents, fates)

    def _table(self, documents: Sequence[Document], fates: Sequence[Fate]) -> Any:
        import pyarrow as pa

        hard, schema = self.hard, self.schema()
        columns = {
            "row": [d.row for d in documents],
            "id": [d.id for d in documents],
            "url": [d.url for d in documents],
            "text": [
                d.text if f.at == KEPT or self.annotate and f.at not in hard else ""
                for d, f in zip(documents, fates, strict=True)
            ],
            "at": [f.at for f in fates],
            "rule": [f.drop.rule for f in fates],
            "value": [shown(f.drop.value) for f in fates],
            "limit": [f.drop.limit for f in fates],
            "excerpt": [f.excerpt for f in fates],
            "edits": [[{"at": at, "count": count} for at, count in f.edits] for f in fates],
            "checks": [
                [
                    {
                        "at": at,
                        "rule": c.rule,
                        "value": float(c.value),
                        "least": c.least,
                        "most": c.most,
                    }
                    for at, c in f.checks
                ]
                for f in fates
            ],
            **{f"sign{at}": [f.signatures.get(at) for f in fates] for at in self.signed},
        }
        return pa.table(
            [pa.array(columns[field.name], field.type) for field in schema], schema=schema
        )

    @property
    def hard(self) -> frozenset[int]:
        """Positions that drop also when filters only annotate: no text, no document."""
        return frozenset(at for at, part in enumerate(self.parts) if part.kind == "extract")


_filters: dict[tuple[int, int, str], Any] = {}


def open_filter(chain: Chain, at: int) -> Any:
    """The filter at a position, made once in each process."""
    part = chain.parts[at]
    key = (os.getpid(), at, repr((part, chain.sources)))
    if key not in _filters:
        _filters[key] = load_component("filters", part.spec)
        if getattr(_filters[key], "wants", "") == "evaluations":
            _filters[key].open(chain.sources)
    return _filters[key]


def shown(value: float | str) -> str:
    """A measured value as text; numbers to four digits, equal on every machine."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dc.dataclass
class Work:
    """One batch on its way through the chain."""

    chain: Chain
    documents: list[Document]
    fates: list[Fate]
    columns: Mapping[str, list[Any]]

    def step(self, at: int) -> None:
        """Take the documents that are left through one part."""
        part, hard = self.chain.parts[at], self.chain.hard
        alive = [
            i
            for i, fate in enumerate(self.fates)
            if fate.at == KEPT or self.chain.annotate and fate.at not in hard
        ]
        if not alive:
            return
        if part.kind == "extract":
            self._extract(at, alive)
            return
        each, batch = open_filter(self.chain, at), [self.documents[i] for i in alive]
        if at in self.chain.signed:
            for i, signature in zip(alive, _sign(part.name, each, batch), strict=True):
                self.fates[i].signatures[at] = signature
            return
        if self.chain.annotate:
            self._measure(at, each, alive, batch)
        verdicts = (
            each.judge(batch, self.chain.finding)
            if at == self.chain.edited
            else judge(part.name, each, batch)
        )
        for i, verdict in zip(alive, verdicts, strict=True):
            if isinstance(verdict, Drop):
                self._drop(i, at, verdict)
            elif isinstance(verdict, Edit):
                self.fates[i].edits.append((at, verdict.count))
                self.documents[i].text = verdict.text

    def _extract(self, at: int, alive: Sequence[int]) -> None:
        columns, settings = self.columns, self.chain.settings
        pages = [i for i in alive if columns["media"][i] == "text/html"]
        charsets = columns.get("charset") or [""] * len(columns["id"])
        jobs = [
            (columns["body"][i] or b"", "text/html", charsets[i] or "", columns["url"][i])
            for i in pages
        ]
        spec = tuple(sorted(self.chain.parts[at].spec.items()))
        found = dict(
            zip(
                pages,
                extraction_pool.shared().run(jobs, settings, spec) if jobs else (),
                strict=True,
            )
        )
        for i in alive:
            if i not in found:
                found[i] = extract(
                    columns["body"][i] or b"",
                    columns["media"][i],
                    charsets[i] or "",
                    columns["url"][i],
                    settings,
                    None,
                )
            self._take(i, at, found[i])

    def _take(self, i: int, at: int, found: Extracted) -> None:
        if found.rule:
            self._drop(i, at, Drop(found.rule, found.value, found.limit), found.excerpt)
        else:
            self.documents[i].text = found.text

    def _drop(self, i: int, at: int, drop: Drop, excerpt: str = "") -> None:
        fate = self.fates[i]
        if fate.at == KEPT:
            fate.at, fate.drop = at, drop
            fate.excerpt = excerpt or clean(self.documents[i].text[:EXCERPT])
        if at in self.chain.hard:
            fate.at, fate.drop = at, drop

    def _measure(
        self, at: int, each: Any, alive: Sequence[int], batch: Sequence[Document]
    ) -> None:
        if hasattr(each, "measure"):
            for i, checks in zip(alive, each.measure(batch), strict=True):
                self.fates[i].checks += [(at, check) for check in checks]


def judge(name: str, each: Any, batch: Sequence[Document]) -> Sequence[Verdict]:
    """The verdicts of one filter. An exception costs the document that causes it; a filter that fails on all stops the stage."""
    try:
        verdicts = each.judge(batch)
    except StageError:
        raise
    except Exception as error:
        verdicts = [_alone(each, document) for document in batch]
        failed = [v for v in verdicts if isinstance(v, Drop) and v.rule == "error"]
        if len(failed) == len(batch) > 7:
            raise StageError(
                f"filter {name} failed on {len(failed)} of {len(batch)} documents (first: {failed[0].value}); "
                f"mend it, or take it out with ~corpus.filters.{name}"
            ) from error
    if len(verdicts) != len(batch):
        raise StageError(
            f"filter {name} gave {len(verdicts)} verdicts for {len(batch)} documents; it must give one each"
        )
    return verdicts


def _alone(each: Any, document: Document) -> Verdict:
    try:
        return each.judge([document])[0]
    except Exception as error:  # counted and written to dropped/ with its text
        return Drop(
            "error", f"{type(error).__name__}: {error}"[:EXCERPT], "a verdict without error"
        )


def _sign(name: str, each: Any, batch: Sequence[Document]) -> Sequence[bytes]:
    try:
        return each.sign(batch)
    except StageError:
        raise
    except Exception as error:
        raise StageError(
            f"filter {name} failed while it signed {len(batch)} documents ({type(error).__name__}: {error}); "
            f"take it out with ~corpus.filters.{name}, or report it to its author"
        ) from error
