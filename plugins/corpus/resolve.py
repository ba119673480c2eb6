"""From outcomes to artifacts: the documents that duplicates take away, all final verdicts, counts.

Reads the outcomes stream by stream, so memory does not grow with texts: a few numbers for each
document and pass, and the signatures of one group at a time in a memory-mapped file. The order of
the filters decides: a document belongs to the first component that dropped it, and a group
compares only what reached it.
"""

from __future__ import annotations

import dataclasses as dc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data.filtering import Drop, Signatures
from llmstages.plugins.corpus.filter_pipeline import KEPT, FilterPipeline, open_filter, shown


@dc.dataclass
class PassResult:
    """What one pass made of its documents.

    Attributes:
        pipeline: the pass.
        files: Arrow streams of the outcomes.
        at: position of the component that dropped a document, KEPT for none (int32 array).
        ids: ids of the documents (Arrow column).
        rows: their rows in the documents artifact (int64 array).
        drops: position of a group -> row -> why the document goes.
    """

    pipeline: FilterPipeline
    files: Sequence[Path]
    at: Any
    ids: Any
    rows: Any
    drops: dict[int, Mapping[int, Drop]]

    def batches(self) -> Iterator[tuple[int, Any]]:
        """(index of the first document in this pass, record batch), memory-mapped."""
        start = 0
        for file in self.files:
            for batch in _stream(file):
                yield start, batch
                start += len(batch)


def _stream(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream


def settle(pipeline: FilterPipeline, files: Sequence[Path], work: Path) -> PassResult:
    """Let the signed groups of a pass decide, in order."""
    import numpy as np
    import pyarrow as pa

    at, ids, rows = [], [], []
    for file in files:
        for batch in _stream(file):
            at.append(batch["at"].to_numpy())
            rows.append(batch["row"].to_numpy())
            # Offsets of 32 bits would overflow at 2 GB of ids.
            ids.append(batch["id"].cast(pa.large_string()))
    empty = np.zeros(0, np.int64)
    result = PassResult(
        pipeline,
        files,
        at=np.concatenate(at or [empty]).astype(np.int32),
        ids=pa.chunked_array(ids, pa.large_string()),
        rows=np.concatenate(rows or [empty]),
        drops={},
    )
    for position in pipeline.settled:
        # What a later component dropped did reach this group.
        reached = (result.at == KEPT) | (result.at > position)
        drops = compare(result, position, reached, work)
        result.drops[position] = drops
        dropped_rows = np.fromiter(drops, np.int64, len(drops))
        result.at[np.isin(result.rows, dropped_rows) & reached] = position
    return result


def compare(result: PassResult, position: int, reached: Any, work: Path) -> Any:
    """Ask a group about the documents that reached it (a bool array)."""
    import numpy as np

    component = result.pipeline.components[position]
    indices = np.flatnonzero(reached)
    signatures = _signatures(result, position, reached, work)
    filter = open_filter(result.pipeline, position)
    signed = Signatures(result.rows[indices], _Ids(result.ids, indices), signatures)
    try:
        return filter.compare(signed)
    except StageError:
        raise
    except Exception as error:
        raise StageError(
            f"filter {component.name} failed over all {len(indices)} documents "
            f"({type(error).__name__}: {error}); remove it with ~corpus.filters.{component.name}, "
            "or report it to its author"
        ) from error


@dc.dataclass(frozen=True)
class _Ids(Sequence):
    """Ids of the documents that reached a group, read from the Arrow column one at a time."""

    column: Any
    indices: Any

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.column[int(self.indices[index])].as_py()


def _signatures(result: PassResult, position: int, reached: Any, work: Path) -> Any:
    """(documents, width) uint8 in a memory-mapped file, or a list for a group that edits."""
    import numpy as np

    batches = _signature_batches(result, position, reached)
    if getattr(open_filter(result.pipeline, position), "edits", False):
        return [signature for batch in batches for signature in batch]
    table, filled, count = None, 0, int(reached.sum())
    for batch in batches:
        if table is None:
            file = work / f"sign{position}"
            table = np.memmap(file, np.uint8, "w+", shape=(count, len(batch[0])))
        block = np.frombuffer(b"".join(batch), np.uint8).reshape(len(batch), -1)
        table[filled : filled + len(batch)] = block
        filled += len(batch)
    return np.zeros((0, 0), np.uint8) if table is None else table


def _signature_batches(result: PassResult, position: int, reached: Any) -> Iterator[list[bytes]]:
    """The signatures of the documents that reached a group; no batch is empty."""
    for start, batch in result.batches():
        here = reached[start : start + len(batch)]
        column = batch[f"sign{position}"].to_pylist()
        signatures = [value for value, wanted in zip(column, here, strict=True) if wanted]
        if signatures:
            yield signatures


class Funnel:
    """Counts of what each component saw, dropped and edited, over all passes."""

    def __init__(self, pipeline: FilterPipeline) -> None:
        self.components = pipeline.components
        self.annotate = pipeline.annotate
        self.seen: Counter[int] = Counter()
        self.edited: Counter[int] = Counter()
        self.by_rule: Counter[tuple[int, str]] = Counter()

    def count_pass(self, result: PassResult) -> None:
        """Count how many documents each component of a pass saw."""
        import numpy as np

        # One more, since KEPT is -1.
        dropped = np.bincount(result.at + 1, minlength=len(self.components) + 1)
        left = int(dropped.sum())
        for position in range(result.pipeline.first, result.pipeline.last):
            self.seen[position] += left
            left -= int(dropped[position + 1])

    def count_drop(self, position: int, rule: str) -> str:
        """Count a drop; returns the full name of the rule."""
        name = self.components[position].name
        full_name = f"{name}.{rule}" if rule else name
        self.by_rule[position, full_name] += 1
        return full_name

    def check_errors(self, max_error_rate: float) -> None:
        """Raise StageError if a filter failed on too many of the documents it saw."""
        for position, component in enumerate(self.components):
            if component.kind == "extract":
                continue
            name, seen = component.name, self.seen[position]
            failed = self.by_rule[position, f"{name}.error"]
            if failed > max(1.0, max_error_rate * seen):
                raise StageError(
                    f"filter {name} failed on {failed} of {seen} documents, more than "
                    f"max_error_rate {max_error_rate:g}; dropped/ of a run with a higher rate "
                    f"shows them. Fix it, or remove it with ~corpus.filters.{name}"
                )

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``funnel.json``, in the order of the components.

        One row for each rule that dropped. A filter without drops, or with edits, has a row of
        its own.
        """
        rows: list[dict[str, Any]] = []
        for position, component in enumerate(self.components):
            rules = {
                rule: count
                for (owner, rule), count in sorted(self.by_rule.items())
                if owner == position
            }
            if self.edited[position] or not rules:
                rules.setdefault(component.name, 0)
            # Filters that annotate drop nothing, but the count is worth seeing.
            annotates = self.annotate and component.kind != "extract"
            for rule, count in rules.items():
                row = {
                    "rule": rule,
                    "kind": component.kind,
                    "seen": self.seen[position],
                    "dropped": 0 if annotates else count,
                    "edited": self.edited[position] if rule == component.name else 0,
                }
                if annotates:
                    row["would_drop"] = count
                rows.append(row)
        return rows


def settled_documents(result: PassResult, funnel: Funnel) -> Iterator[dict[str, Any]]:
    """Every document of a pass with its verdict; drops and edits are counted on the way.

    Each is {id, url, row, text, rule ("" if it is kept), value, limit, excerpt, at, edits, checks}.
    """
    for start, batch in result.batches():
        for offset, document in enumerate(batch.to_pylist()):
            at = int(result.at[start + offset])
            if at != KEPT:
                # A group decided, before the component that the outcome names.
                if at != document["at"]:
                    drop = result.drops[at][document["row"]]
                    document["rule"] = drop.rule
                    document["value"] = shown(drop.value)
                    document["limit"] = drop.limit
                    document["excerpt"] = document["excerpt"] or document["text"][:200]
                document["rule"] = funnel.count_drop(at, document["rule"])
            # Edits behind the component that dropped the document never happened.
            for edit in document["edits"]:
                if at == KEPT or edit["at"] < at:
                    funnel.edited[edit["at"]] += edit["count"]
            document["at"] = at
            yield document
