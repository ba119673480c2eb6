"""What people see: lines, progress and tables. Standard output may carry JSON alone.

rich is imported only where a bar or a table is drawn, so that ``--help`` and ``plan`` stay quick.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from llmstages.core.secrets import mask

AT_ONCE = 0.05  # seconds in which no progress is made, only what was there is counted
EVERY = 15.0  # seconds between plain progress lines where there is no terminal


class Console:
    """Lines for people, on standard error where standard output carries JSON, and for logs."""

    def __init__(self, to_stderr: bool = False, quiet: bool = False) -> None:
        self.to_stderr, self.quiet = to_stderr, quiet
        self._logs: list[TextIO] = []

    @property
    def stream(self) -> TextIO:
        return sys.stderr if self.to_stderr else sys.stdout

    def say(self, line: str = "") -> None:
        """One line, secrets masked."""
        if not self.quiet:
            print(mask(line), file=self.stream, flush=True)
        self.note(line)

    def note(self, line: str) -> None:
        """One line for the logs alone."""
        for log in self._logs:
            # A log must not end a run, least of all on a full disk, which has a message of its own.
            with contextlib.suppress(OSError, ValueError):
                print(
                    time.strftime("%Y-%m-%d %H:%M:%S"), mask(line.strip("\n")), file=log, flush=True
                )

    @contextmanager
    def logging(self, path: Path | None) -> Iterator[None]:
        """Append what is said, and how progress ends, to a file as well; None: to no file."""
        if path is None:
            yield
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as log:
            self._logs.append(log)
            try:
                yield
            finally:
                self._logs.remove(log)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table without lines: readable in a terminal and in a log."""
        if not rows:
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
        with self._shown_progress(description, total) as advance:
            if not self._logs:
                yield advance
                return
            logged = _Lines(description, total, self.note)

            def advance_both(n: float = 1, note: str = "") -> None:
                advance(n, note)
                logged.advance(n, note)

            try:
                yield advance_both
            finally:
                self.note(logged.end())

    @contextmanager
    def _shown_progress(self, description: str, total: float | None) -> Iterator[Any]:
        if self.quiet:
            yield lambda n=1, note="": None
        elif sys.stderr.isatty():
            with _bar(description, total) as advance:
                yield advance
        else:
            yield _Lines(description, total, _print_to_stderr).advance


@contextmanager
def _bar(description: str, total: float | None) -> Iterator[Any]:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
    )

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=RichConsole(file=sys.stderr), transient=True) as bars:
        task = bars.add_task(description, total=total, note="", left="")
        pace = _Pace(total)

        def advance(n: float = 1, note: str = "") -> None:
            pace.advance(n)
            bars.update(task, advance=n, left=pace.left())
            if note:
                bars.update(task, note=note)

        yield advance


class _Lines:
    """Progress as a line now and then."""

    def __init__(self, description: str, total: float | None, write: Callable[[str], None]) -> None:
        self.description, self.total, self.write = description, total, write
        self.pace = _Pace(total)
        self.last_note = ""
        self.last = self.pace.start

    def advance(self, n: float = 1, note: str = "") -> None:
        self.pace.advance(n)
        self.last_note = note or self.last_note
        now = time.monotonic()
        if now - self.last < EVERY:
            return
        self.last = now
        progress = self._counted()
        if left := self.pace.left():
            progress += f", {left}"
        self.write(f"  {self.description} {progress} {note}".rstrip())

    def end(self) -> str:
        """How it ended."""
        elapsed = format_seconds(time.monotonic() - self.pace.start)
        return f"  {self.description} {self._counted()} in {elapsed} {self.last_note}".rstrip()

    def _counted(self) -> str:
        done = f"{self.pace.done:g}"
        return f"{done}/{self.total:g}" if self.total else done


def _print_to_stderr(line: str) -> None:
    print(mask(line), file=sys.stderr, flush=True)


class _Pace:
    """Progress, and the time that is left at its mean pace, known from the first advance on.

    (rich forgets what is older than 30 seconds, so it knows no pace where an update takes longer.)
    """

    def __init__(self, total: float | None) -> None:
        self.total = total
        self.start = time.monotonic()
        self.done = 0.0
        self.done_before = 0.0  # by an earlier run that is continued

    def advance(self, n: float) -> None:
        self.done += n
        if time.monotonic() - self.start < AT_ONCE:
            self.done_before += n

    def left(self) -> str:
        """``3.5 min left``; "" as long as nothing is known."""
        worked = self.done - self.done_before
        if not self.total or worked <= 0:
            return ""
        seconds = (time.monotonic() - self.start) * (self.total - self.done) / worked
        return f"{format_seconds(max(seconds, 0.0))} left"


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
