"""From outcomes to artifacts: which documents duplicates take away, what is kept, dropped, edited, and the counts.

Reads the outcomes stream by stream, so memory does not grow with texts: a few numbers a document and pass, and the
signatures of one group at a time in a memory-mapped file. The order of the filters decides: a document belongs to the first
step that dropped it, and a group compares only what reached it.
"""

from __future__ import annotations

import dataclasses as dc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data.filtering import Drop, Signatures
from llmstages.plugins.corpus.filter_pipeline import KEPT, Chain, open_filter, shown


@dc.dataclass
class Outcomes:
    """What the documents of one pass came to. files: Arrow streams; at: position of the step that dropped a row, KEPT for none."""

    chain: Chain
    files: Sequence[Path]
    at: Any
    ids: Any
    rows: Any
    drops: dict[int, dict[int, Drop]]

    def batches(self) -> Iterator[tuple[int, Any]]:
        """(number of the first row in this pass, record batch), memory-mapped."""
        start = 0
        for file in self.files:
            for batch in _stream(file):
                yield start, batch
                start += len(batch)


def _stream(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream


def settle(chain: Chain, files: Sequence[Path], work: Path) -> Outcomes:
    """Let the signed groups of a pass decide, in order."""
    import numpy as np
    import pyarrow as pa

    at, ids, rows = [], [], []
    for file in files:
        for batch in _stream(file):
            at.append(batch["at"].to_numpy())
            rows.append(batch["row"].to_numpy())
            ids.append(batch["id"].cast(pa.large_string()))
    empty = np.zeros(0, np.int64)
    made = Outcomes(
        chain,
        files,
        np.concatenate(at or [empty]).astype(np.int32),
        pa.chunked_array(ids, pa.large_string()),
        np.concatenate(rows or [empty]),
        {},
    )
    for position in chain.settled:
        reached = (made.at == KEPT) | (made.at > position)
        drops = compare(made, position, reached, work)
        made.drops[position] = drops
        gone = np.isin(made.rows, np.fromiter(drops, np.int64, len(drops))) & reached
        made.at[gone] = position
    return made


def compare(made: Outcomes, position: int, reached: Any, work: Path) -> Any:
    """Ask a group about the documents that reached it."""
    import numpy as np

    part, where = made.chain.parts[position], np.flatnonzero(reached)
    signatures = _signatures(made, position, reached, work)
    each = open_filter(made.chain, position)
    try:
        return each.compare(Signatures(made.rows[where], _Ids(made.ids, where), signatures))
    except StageError:
        raise
    except Exception as error:
        raise StageError(
            f"filter {part.name} failed over all {len(where)} documents ({type(error).__name__}: {error}); "
            f"take it out with ~corpus.filters.{part.name}, or report it to its author"
        ) from error


@dc.dataclass(frozen=True)
class _Ids(Sequence):
    """Ids of the documents that reached a group, taken from the Arrow column one at a time."""

    column: Any
    where: Any

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> str:
        return self.column[int(self.where[index])].as_py()


def _signatures(made: Outcomes, position: int, reached: Any, work: Path) -> Any:
    """(n, width) uint8 in a memory-mapped file, or a list of bytes for a group that edits."""
    import numpy as np

    name = f"sign{position}"
    if getattr(open_filter(made.chain, position), "edits", False):
        return [
            value
            for start, batch in made.batches()
            for value, here in zip(
                batch[name].to_pylist(), reached[start : start + len(batch)], strict=True
            )
            if here
        ]
    found, at, count = None, 0, int(reached.sum())
    for start, batch in made.batches():
        values = [
            v
            for v, here in zip(
                batch[name].to_pylist(), reached[start : start + len(batch)], strict=True
            )
            if here
        ]
        if not values:
            continue
        if found is None:
            found = np.memmap(work / name, np.uint8, "w+", shape=(count, len(values[0])))
        found[at : at + len(values)] = np.frombuffer(b"".join(values), np.uint8).reshape(
            len(values), -1
        )
        at += len(values)
    return np.zeros((0, 0), np.uint8) if found is None else found


class Ledger:
    """Counts of the funnel over all passes. Its rows become ``funnel.json``."""

    def __init__(self, chain: Chain) -> None:
        self.parts, self.annotate = chain.parts, chain.annotate
        self.seen: Counter[int] = Counter()
        self.edited: Counter[int] = Counter()
        self.by_rule: Counter[tuple[int, str]] = Counter()
        self.extra: list[dict[str, str | int]] = []

    def pass_(self, made: Outcomes) -> None:
        """Count which steps of a pass saw how many documents."""
        import numpy as np

        ends = np.bincount(made.at + 1, minlength=len(self.parts) + 1)
        left = int(ends.sum())
        for position in range(made.chain.first, made.chain.last):
            self.seen[position] += left
            left -= int(ends[position + 1])

    def drop(self, position: int, rule: str) -> str:
        """Count a drop; returns the full name of the rule."""
        name = self.parts[position].name
        full = f"{name}.{rule}" if rule else name
        self.by_rule[position, full] += 1
        return full

    def check(self, max_error_rate: float) -> None:
        """StageError where a filter failed on too many of the documents it saw."""
        for position, part in enumerate(self.parts):
            failed = self.by_rule[position, f"{part.name}.error"] if part.kind != "extract" else 0
            if failed > max(1.0, max_error_rate * self.seen[position]):
                raise StageError(
                    f"filter {part.name} failed on {failed} of {self.seen[position]} documents, more than max_error_rate "
                    f"{max_error_rate:g}; dropped/ of a run with a higher rate shows them. Mend it, or take it out with ~corpus.filters.{part.name}"
                )

    def funnel(self) -> list[dict[str, str | int]]:
        """One row a rule that dropped, in the order of the filters; a filter without drops, or with edits, has its own row."""
        rows = []
        for position, part in enumerate(self.parts):
            rules = {
                rule: n for (owner, rule), n in sorted(self.by_rule.items()) if owner == position
            }
            if self.edited[position] or not rules:
                rules.setdefault(part.name, 0)
            soft = (
                self.annotate and part.kind != "extract"
            )  # nothing is dropped, but the count is worth seeing
            rows += [
                {
                    "rule": rule,
                    "kind": part.kind,
                    "seen": self.seen[position],
                    "dropped": 0 if soft else n,
                    "edited": self.edited[position] if rule == part.name else 0,
                    **({"would_drop": n} if soft else {}),
                }
                for rule, n in rules.items()
            ]
        return rows + self.extra


def fates(made: Outcomes, ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Every document of a pass: {id, url, row, text, rule ("" when kept), value, limit, excerpt, at, edits, checks}; counts as it goes."""
    for start, batch in made.batches():
        for offset, row in enumerate(batch.to_pylist()):
            at = int(made.at[start + offset])
            if at != KEPT:
                if at != row["at"]:  # a group decided, before anything else could
                    drop = made.drops[at][row["row"]]
                    row |= {
                        "rule": drop.rule,
                        "value": shown(drop.value),
                        "limit": drop.limit,
                        "excerpt": row["excerpt"] or row["text"][:200],
                    }
                row["rule"] = ledger.drop(at, row["rule"])
            for edit in row["edits"]:
                if at == KEPT or edit["at"] < at:
                    ledger.edited[edit["at"]] += edit["count"]
            yield {**row, "at": at}
