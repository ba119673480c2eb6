"""Runs filters over documents; writes down every drop and counts everything.

Consecutive filters that judge or edit single documents take a batch through all of them before the next batch, so the
words of a document are computed once and freed before they pile up. Group filters see all documents that are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from llmstages.plugins.corpus.filter import Document, Drop, Edit, Filter, Verdict
from llmstages.readers import clean
from llmstages.stage import StageError

BATCH = 256
EXCERPT = 200


def shown(value: float | str) -> str:
    """A measured value as text; numbers to four digits, equal on every machine."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Ledger:
    """What was dropped and edited, by which rule. Its rows become ``dropped/`` and ``funnel.json``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []
        self.seen: Counter[str] = Counter()
        self.edited: Counter[str] = Counter()
        self.kinds: dict[str, str] = {}
        self.by_rule: Counter[tuple[str, str]] = Counter()

    def open(self, name: str, kind: str, seen: int) -> None:
        """A step of the funnel looks at ``seen`` more documents."""
        self.kinds.setdefault(name, kind)
        self.seen[name] += seen

    def drop(self, name: str, document: Document, drop: Drop, excerpt: str = "") -> None:
        """Write down why a document goes. name: the filter; the rule becomes ``name.rule``."""
        rule = f"{name}.{drop.rule}" if drop.rule else name
        self.by_rule[name, rule] += 1
        self.rows.append({"id": document.id, "url": document.url, "rule": rule, "value": shown(drop.value),
                          "limit": drop.limit, "excerpt": excerpt or clean(document.text[:EXCERPT])})

    def funnel(self) -> list[dict[str, str | int]]:
        """One row a rule that dropped, in the order of the filters; a filter without drops, or with edits, has its own row."""
        rows = []
        for name, kind in self.kinds.items():
            rules = {rule: n for (owner, rule), n in sorted(self.by_rule.items()) if owner == name}
            if self.edited[name] or not rules:
                rules.setdefault(name, 0)
            rows += [{"rule": rule, "kind": kind, "seen": self.seen[name], "dropped": n,
                      "edited": self.edited[name] if rule == name else 0} for rule, n in rules.items()]
        return rows


def run_filters(filters: Mapping[str, Filter], documents: list[Document], ledger: Ledger, max_error_rate: float,
                tick: Callable[..., None] = lambda n=1, note="": None) -> list[Document]:
    """The documents that pass all filters, in order. tick is called once a filter and batch."""
    for grouped, members in groupby(filters.items(), key=lambda item: item[1].kind == "group"):
        members = list(members)
        size = max(len(documents), 1) if grouped else BATCH
        kept = []
        for name, each in members:
            ledger.open(name, each.kind, 0)
        for start in range(0, len(documents), size) if not grouped else [0]:
            batch = documents[start:start + size]
            for name, each in members:
                ledger.open(name, each.kind, len(batch))
                batch = _settle(name, batch, _apply(name, each, batch, max_error_rate), ledger)
                tick(1, name)
            for document in batch:
                document.forget()
            kept += batch
        documents = kept
    return documents


def _apply(name: str, each: Filter, batch: Sequence[Document], max_error_rate: float) -> Sequence[Verdict]:
    """The verdicts of one filter. An exception costs the document that causes it; many of them stop the stage."""
    try:
        verdicts = each.apply(batch)
    except StageError:
        raise
    except Exception as error:
        if each.kind == "group":
            raise StageError(f"filter {name} failed over all {len(batch)} documents ({type(error).__name__}: {error}); "
                             f"take it out with ~corpus.filters.{name}, or report it to its author") from error
        verdicts = [_alone(each, document) for document in batch]
        failed = [v for v in verdicts if isinstance(v, Drop) and v.rule == "error"]
        if len(failed) > max(1.0, max_error_rate * len(batch)):
            raise StageError(f"filter {name} failed on {len(failed)} of {len(batch)} documents, more than max_error_rate "
                             f"{max_error_rate:g} (first: {failed[0].value}); mend it, or take it out with ~corpus.filters.{name}") from error
    if len(verdicts) != len(batch):
        raise StageError(f"filter {name} gave {len(verdicts)} verdicts for {len(batch)} documents; it must give one each")
    return verdicts


def _alone(each: Filter, document: Document) -> Verdict:
    try:
        return each.apply([document])[0]
    except Exception as error:  # counted and written to dropped/ with its text
        return Drop("error", f"{type(error).__name__}: {error}"[:EXCERPT], "a verdict without error")


def _settle(name: str, batch: Sequence[Document], verdicts: Sequence[Verdict], ledger: Ledger) -> list[Document]:
    kept = []
    for document, verdict in zip(batch, verdicts, strict=True):
        if isinstance(verdict, Drop):
            ledger.drop(name, document, verdict)
            continue
        if isinstance(verdict, Edit):
            ledger.edited[name] += verdict.count
            document.text = verdict.text
        kept.append(document)
    return kept
