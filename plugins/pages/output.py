"""The artifact of the pages stages, written row by row: memory holds one batch, whatever the size of the input."""

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
DROPPED = dict.fromkeys(("id", "url", "rule", "value", "limit", "excerpt"), "string")


class Output:
    """``data/`` and ``dropped/``, their counts and what there is to say about them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.documents = self.bytes = self.replaced = self.with_replaced = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, Rejected] = {}  # rule -> the first that broke it
        self._first_replaced = ""

    def __enter__(self) -> Output:
        with ExitStack() as stack:
            self._data = stack.enter_context(tables.Writer(self._ctx.out / "data", COLUMNS))
            self._dropped = stack.enter_context(tables.Writer(self._ctx.out / "dropped", DROPPED))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, found: Record | Rejected) -> None:
        """Write one document, or the reason why there is none."""
        if isinstance(found, Rejected):
            self.reasons[found.rule] += 1
            self.first.setdefault(found.rule, found)
            self._dropped.write(found.as_dropped())
            return
        self._data.write({name: getattr(found, name) for name in COLUMNS})
        self.documents += 1
        self.bytes += len(found.body)
        if found.replaced:
            self.replaced += found.replaced
            self.with_replaced += 1
            self._first_replaced = self._first_replaced or found.id

    def why(self) -> str:
        """Why there is no document, as the rest of a sentence."""
        counts = ", ".join(f"{count} {rule}" for rule, count in self.reasons.items())
        first = next(iter(self.first.values()), None)
        return (
            clean(f"; left out: {counts}, first: {first.position}: {first.reason}") if first else ""
        )

    def report(self) -> dict[str, float]:
        """Say what was left out or replaced; returns the metrics."""
        for rule, count in sorted(self.reasons.items()):
            first = self.first[rule]
            self._ctx.say(
                clean(
                    f"{count} records left out: {rule} (see dropped/; first: {first.position}: {first.reason[:120]})"
                )
            )
        if self.replaced:
            self._ctx.say(
                f"{self.replaced} characters that are not Unicode replaced by U+FFFD in {self.with_replaced} documents "
                f"(first: {self._first_replaced})"
            )
        return {
            "documents": self.documents,
            "dropped": self.reasons.total(),
            "damaged": self.reasons["damaged"],
            "replaced": self.replaced,
            "megabytes": round(self.bytes / 1e6, 3),
        }
