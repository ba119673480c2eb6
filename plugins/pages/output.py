"""The artifact of the pages stages, written row by row: memory holds one batch."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.readers import Record, Rejected, clean

COLUMNS = {
    "id": "string",
    "url": "string",
    "body": "binary",
    "media": "string",
    "charset": "string",
}
SHOWN = 120  # characters of a reason in a message


class Output:
    """``data/`` and ``dropped/`` with their counts, to be used in a ``with`` statement.

    Args:
        ctx: where the step runs.
        keep_cut: write documents that are not whole to ``data/`` too.

    Attributes:
        documents: documents written.
        bytes: bytes of their bodies.
        reasons: rule -> records that broke it.
        first: rule -> the first record that broke it.
    """

    def __init__(self, ctx: Context, keep_cut: bool = True) -> None:
        self._ctx = ctx
        self._keep_cut = keep_cut
        self.documents = 0
        self.bytes = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, Rejected] = {}
        # Characters that are not Unicode: how many, in how many documents, and the first of these.
        self._replaced = 0
        self._with_replaced = 0
        self._first_replaced = ""
        self._cut = 0
        self._first_cut = ""

    def __enter__(self) -> Output:
        # The stack closes the first writer if the second one cannot be opened.
        with ExitStack() as stack:
            data = tables.Writer(self._ctx.out / "data", COLUMNS)
            self._data = stack.enter_context(data)
            dropped = tables.Writer(self._ctx.out / "dropped", tables.DROPPED_COLUMNS)
            self._dropped = stack.enter_context(dropped)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, record: Record | Rejected) -> None:
        """Write one document, or the reason why it is left out."""
        if isinstance(record, Rejected):
            self.reasons[record.rule] += 1
            self.first.setdefault(record.rule, record)
            self._dropped.write(record.as_dropped())
            return
        if record.cut:
            self._cut += 1
            self._first_cut = self._first_cut or f"{record.id}: {record.cut[:SHOWN]}"
            if not self._keep_cut:
                self.reasons["cut"] += 1
                dropped = Rejected(record.id, record.cut, "cut", record.url)
                self._dropped.write(dropped.as_dropped())
                return
        self._data.write({name: getattr(record, name) for name in COLUMNS})
        self.documents += 1
        self.bytes += len(record.body)
        if record.replaced:
            self._replaced += record.replaced
            self._with_replaced += 1
            self._first_replaced = self._first_replaced or record.id

    def why(self) -> str:
        """Why there is no document, as the rest of a sentence; "" if nothing was left out."""
        if not self.first:
            return ""
        counts = ", ".join(f"{count} {rule}" for rule, count in self.reasons.items())
        # Dictionaries keep their order, so this is the first record that was left out.
        first = next(iter(self.first.values()))
        return clean(f"; left out: {counts}, first: {first.position}: {first.reason}")

    def report(self) -> dict[str, float]:
        """Report what was left out or replaced, and return the metrics."""
        for rule, count in sorted(self.reasons.items()):
            if rule not in self.first:
                continue  # documents that are cut have a line of their own
            first = self.first[rule]
            example = f"{first.position}: {first.reason[:SHOWN]}"
            line = f"{count} records left out: {rule} (see dropped/; first: {example})"
            self._ctx.say(clean(line))
        if self._replaced:
            self._ctx.say(
                f"{self._replaced} characters that are not Unicode replaced by U+FFFD "
                f"in {self._with_replaced} documents (first: {self._first_replaced})"
            )
        if self._cut:
            what = "kept" if self._keep_cut else "left out"
            line = f"{self._cut} documents are not whole and {what} (first: {self._first_cut})"
            self._ctx.say(clean(line))
        return {
            "documents": self.documents,
            "dropped": self.reasons.total(),
            "damaged": self.reasons["damaged"],
            "cut": self._cut,
            "replaced": self._replaced,
            "megabytes": round(self.bytes / 1e6, 3),
        }
