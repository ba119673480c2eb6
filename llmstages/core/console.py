"""What people see: lines, progress and tables. Standard output may carry JSON alone.

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

EVERY = 15.0  # seconds between plain progress lines where there is no terminal


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
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.say("  " + "  ".join(cells).rstrip())

    @contextmanager
    def progress(self, description: str, total: float | None = None) -> Iterator[Any]:
        """A bar on a terminal, otherwise a line now and then; yields advance(n=1, note="")."""
        if self.quiet:
            yield lambda n=1, note="": None
        elif sys.stderr.isatty():
            with _bar(description, total) as advance:
                yield advance
        else:
            yield _lines(description, total)


@contextmanager
def _bar(description: str, total: float | None) -> Iterator[Any]:
    from rich.console import Console as RichConsole
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
    with Progress(*columns, console=RichConsole(file=sys.stderr), transient=True) as bars:
        task = bars.add_task(description, total=total, note="")

        def advance(n: float = 1, note: str = "") -> None:
            bars.update(task, advance=n)
            if note:
                bars.update(task, note=note)

        yield advance


def _lines(description: str, total: float | None) -> Any:
    done = 0.0
    start = last = time.monotonic()

    def advance(n: float = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last < EVERY:
            return
        last = now
        progress = f"{done:g}"
        if total:
            progress += f"/{total:g}"
            if done:
                remaining = (now - start) * (total - done) / done
                progress += f", {format_seconds(max(remaining, 0.0))} left"
        print(mask(f"  {description} {progress} {note}".rstrip()), file=sys.stderr, flush=True)

    return advance


def format_number(value: Any, digits: int = 4) -> str:
    """A number for people: at most ``digits`` significant ones, 1e-6 rather than 1e-06."""
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 1e6 or value.is_integer():
        return f"{value:g}"
    return re.sub(r"e(-?)\+?0*", r"e\1", f"{value:.{digits}g}")


def format_seconds(value: float) -> str:
    """A duration for people."""
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def format_bytes(value: float) -> str:
    """A size for people, with three digits: 1.23 MB."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = 0
    while value >= 1000 and power < len(units) - 1:
        value /= 1000
        power += 1
    return f"{value:.3g} {units[power]}"
