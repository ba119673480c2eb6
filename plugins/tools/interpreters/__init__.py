"""Interpreters of the tool ``python``: each runs one program and is what protects the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Limits:
    """What a program may use: seconds of CPU time, megabytes of memory, characters of output."""

    seconds: float = 1.0
    memory_mb: int = 64
    max_output: int = 600


@dataclass(frozen=True)
class Outcome:
    """What a program did.

    Attributes:
        printed: its output, the beginning where it is long.
        value: the text of its last expression, "" where that is None or no expression.
        error: type and message of what ended it, "" if it came to its end.
    """

    printed: str = ""
    value: str = ""
    error: str = ""


class Interpreter(Protocol):
    """Runs programs that nobody has read."""

    def start(self) -> None:
        """Get ready. Raises StageError where programs could not be confined on this machine."""
        ...

    def run(self, program: str, earlier: Sequence[str] = ()) -> Outcome:
        """Run a program, after earlier ones whose names it may use. Never raises for what it does.

        Nothing else is left over from one call to the next.
        """
        ...

    def stop(self) -> None:
        """End what start() and run() started."""
        ...
