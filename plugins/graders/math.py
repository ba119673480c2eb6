r"""grader math: the formula that the reply ends with equals the answer, by math-verify.

``\frac{1}{2}``, ``0.5`` and ``1/2`` are one number, ``(x+1)^2`` and ``x^2+2x+1`` one polynomial,
``x<3`` and ``(-\infty, 3)`` one set. What is a number after all (``\frac{1}{2}``, ``\$5``,
``50\%``) is graded as one, since math-verify takes 0.3333333 for 1/3 and drops units. An answer
that it cannot read (``\text{east}``) is graded as words.

math-verify runs in a process of its own with a limit on CPU time (math_worker.py): a formula that
takes longer is not right. Left out on purpose: proofs, and equations in more than one line.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.limits import PATIENCE, Watchdog, child_environment
from llmstages.core.stage import option
from llmstages.plugins.graders import latex, number, words
from llmstages.text import grading

LONGEST = 4000  # characters of a reply that are read, from its end
ANSWERS = {True: "equal", False: "different", None: "unreadable"}
# Two candidates, unless the answer itself is one or the other: "x=1 or x=3".
ALTERNATIVES = re.compile(r"(?<!\\text\{ )\bor\b")
SEVERAL = re.compile(r"^\$?\\?\{|,|\\cup|\\pm")
# In formulas this is a list of two numbers, not a decimal comma.
LIST = re.compile(r"\d,\d{1,2}(?!\d)")
RELATION = re.compile(r"[<>=≤≥]|\\(?:le|ge|leq|geq|lt|gt|ne|neq|in)\b")
BASE = re.compile(r"\d_\{?\d")


@dataclass(frozen=True)
class MathConfig:
    seconds: float = option(
        2.0, "CPU time after which a reply is not right; unit: seconds per reply", gt=0
    )


class Math:
    """The formula that the reply ends with equals the answer, by math-verify."""

    Config = MathConfig
    version = "1"

    def __init__(self, config: MathConfig) -> None:
        self.config = config
        self._worker = Worker(config.seconds)

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool | None]:
        """Whether the formula of each reply is one of the answers; None where time ran out."""
        return [
            self._grade_one(grading.own_part(reply)[-LONGEST:], grading.accepted(row))
            for reply, row in zip(replies, rows, strict=True)
        ]

    def _grade_one(self, reply: str, answers: Sequence[str]) -> bool | None:
        if not reply:
            return False
        given = latex.final_part(reply)
        verdict: bool | None = False
        for answer in answers:
            one = self._compare(reply, given, answer)
            if one:
                return True
            verdict = None if one is None else verdict
        return verdict

    def _compare(self, reply: str, given: str, answer: str) -> bool | None:
        wanted = latex.plain(answer)
        if number.parse(wanted) is not None and not LIST.search(wanted):
            # With the words around it: they may deny it, and hold its unit.
            has_box = latex.BOXED.search(reply) is not None
            return number.gives(latex.plain(given) if has_box else reply, [wanted])
        if latex.squeezed(given) == latex.squeezed(answer):
            return True
        if not _may_be_equal(given, answer):
            return False
        verdict = self._worker.ask(f"${latex.without_dollars(answer)}$", f"${given}$")
        if verdict == "unreadable":
            return words.states(latex.plain(reply), wanted)
        return None if verdict == "killed" else verdict == "equal"


def _may_be_equal(given: str, answer: str) -> bool:
    """Whether math-verify may compare the two: it does not see what this looks at."""
    has_several = ALTERNATIVES.search(answer) or SEVERAL.search(answer)
    if ALTERNATIVES.search(given) and not has_several:
        return False
    # It drops the base of a number, 12_5.
    if bool(BASE.search(given)) != bool(BASE.search(answer)):
        return False
    # "1, 3" is a list, (1, 3) is not.
    bare = answer.strip("$ ")
    is_wrapped = bare[:1] in ("(", "[") and bare[-1:] in (")", "]")
    return not is_wrapped or given[:1] in ("(", "[", "\\") or bool(RELATION.search(given))


class Worker:
    """One process with math-verify; started on use, and again after a formula ended it."""

    command = ("-m", "llmstages.plugins.graders.math_worker")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: Any = None
        self._owner = 0  # process id: a forked child does not use its parent's
        self._lock = threading.Lock()

    def ask(self, wanted: str, reply: str) -> str:
        """ "equal" or "different"; "unreadable" if the wanted is, "killed" at the time limit."""
        with self._lock:
            if self._process is None or self._owner != os.getpid():
                self._process, self._owner = self._start(), os.getpid()
            process = self._process
            watchdog = Watchdog(process, self._seconds * PATIENCE)
            try:
                process.stdin.write(json.dumps([wanted, reply]) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            finally:
                watchdog.stop()
            if not answer:
                process.wait()
                self._process = None
                return "killed"
            return ANSWERS[json.loads(answer)]

    def _start(self) -> Any:
        process = subprocess.Popen(
            [sys.executable, *self.command, str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=child_environment(),
        )
        atexit.register(process.kill)
        assert process.stdout is not None
        if not process.stdout.readline():  # sent when its imports are done
            raise StageError(
                "the process that compares formulas ended before the first one (its error is "
                "above); fix the installation: pip install math-verify"
            )
        return process
