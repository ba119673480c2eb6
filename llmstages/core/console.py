"""What people see: lines, progress and tables. Machine-readable output goes to standard output alone.

rich is imported only where a bar or a table is drawn, so that ``--help`` and ``plan`` stay quick.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from llmstages.core.secrets import mask

EVERY = 15.0  # seconds between plain progress lines when nobody is watching a terminal


class Console:
    """Lines for people, on standard error where standard output carries JSON."""

    def __init__(self, to_stderr: bool = False, quiet: bool = False) -> None:
        self.to_stderr, self.quiet = to_stderr, quiet

    @property
    def stream(self) -> TextIO:
        return sys.stderr if self.to_stderr else sys.stdout

    def say(self, line: str = "") -> None:
        """One line, secrets masked."""
        if not self.quiet:
            print(mask(line), file=self.stream, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table without lines: readable in a terminal and in a log."""
        if self.quiet or not rows:
            return
        texts = [[mask(str(cell)) for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in [list(columns), *texts]) for i in range(len(columns))]
        self.say(f"\n{title}")
        for row in [list(columns), *texts]:
            self.say(
                "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            )

    @contextmanager
    def progress(self, description: str, total: float | None = None) -> Iterator[Any]:
        """A bar on a terminal, otherwise a plain line now and then; yields advance(n=1, note="")."""
        if self.quiet:
            yield lambda n=1, note="": None
        elif sys.stderr.isatty():
            with _bar(description, total) as advance:
                yield advance
        else:
            yield _lines(description, total)


@contextmanager
def _bar(description: str, total: float | None) -> Iterator[Any]:
    from rich.console import Console as Rich
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Rich(file=sys.stderr), transient=True) as bars:
        task = bars.add_task(description, total=total, note="")
        yield lambda n=1, note="": bars.update(task, advance=n, **({"note": note} if note else {}))


def _lines(description: str, total: float | None) -> Any:
    done, last = 0.0, time.monotonic()

    def advance(n: float = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            share = f"{done:g}/{total:g}" if total else f"{done:g}"
            print(mask(f"  {description} {share} {note}".rstrip()), file=sys.stderr, flush=True)

    return advance


def format_number(value: Any, digits: int = 4) -> str:
    """A number for people: at most ``digits`` that matter, 1e-6 rather than 1e-06."""
    if not isinstance(value, float):
        return str(value)
    return (
        re.sub(r"e(-?)\+?0*", r"e\1", f"{value:.{digits}g}")
        if abs(value) < 1e6 and not value.is_integer()
        else f"{value:g}"
    )


def format_seconds(value: float) -> str:
    """A duration for people."""
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"
