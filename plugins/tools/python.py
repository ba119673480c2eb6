"""tool python: ``<CODE_START>"strawberry".count("r")<CODE_END>`` gives 3. Programs run confined.

The result is what the program printed and the value of its last expression. Programs of models were
read by nobody, so each runs in an interpreter that protects the host (``interpreters/``): ``monty``
(the default) or ``cpython``.

A call starts with nothing, so calls of many conversations may alternate in any order. With
``keep_state`` the earlier programs of the conversation run again before it, without their output.
Random numbers are the same in each call (and under monty the clock stands still), so they set the
same names to the same values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.stage import option
from llmstages.plugins.tools.interpreters import Interpreter, Limits, Outcome

ERROR = "error: "
NOTHING = "(no output)"


@dataclass(frozen=True)
class PythonConfig:
    engine: str = option(
        "monty",
        "monty: a Python of its own without files, network and most modules; cpython: the whole "
        "standard library, under bubblewrap or Landlock and seccomp (Linux)",
        choices=("monty", "cpython"),
    )
    seconds: float = option(1.0, "CPU time of a program in seconds", gt=0, le=60)
    memory_mb: int = option(64, "memory of a program in megabytes", ge=8, le=4096)
    max_characters: int = option(2000, "longest program in characters", ge=1)
    max_output: int = option(600, "longest result in characters; the rest is cut off", ge=1)
    keep_state: bool = option(
        False, "a program may use names that earlier programs of the conversation set"
    )


class Python:
    """Runs a Python program; gives what it prints and the value of its last expression."""

    Config = PythonConfig
    version = "1"
    marks = ("<CODE_START>", "<CODE_END>")
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "function",
        "function": {
            "name": "python",
            "description": (
                "Run a Python program. The result is what it prints and the value of its last "
                "expression."
            ),
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "the program"}},
                "required": ["code"],
            },
        },
    }

    def __init__(self, config: PythonConfig) -> None:
        self.config = config
        limits = Limits(config.seconds, config.memory_mb, config.max_output)
        self.interpreter = _interpreter(config.engine, limits)

    def open(self, folder: Path) -> None:
        """Start the interpreter.

        Raises:
            StageError: programs could not be confined on this machine.
        """
        self.interpreter.start()

    def __call__(self, argument: str) -> str:
        return self.call_after(argument, ())

    def call_after(self, argument: str, earlier: Sequence[str]) -> str:
        """The result of a program.

        Args:
            argument: the program, or the JSON object {"code": PROGRAM} of a native call.
            earlier: arguments of the calls before it in the conversation.
        """
        program = program_of(argument)
        if len(program) > self.config.max_characters:
            return f"{ERROR}the program has more than {self.config.max_characters} characters"
        before = [program_of(one) for one in earlier] if self.config.keep_state else []
        return result_text(self.interpreter.run(program, before), self.config.max_output)


def _interpreter(engine: str, limits: Limits) -> Interpreter:
    if engine == "cpython":
        from llmstages.plugins.tools.interpreters.cpython import CPython

        return CPython(limits)
    from llmstages.plugins.tools.interpreters.monty import Monty

    return Monty(limits)


def program_of(argument: str) -> str:
    """The program of a call, which may be written as JSON arguments."""
    try:
        value = json.loads(argument)
    except (ValueError, RecursionError):
        return argument
    if isinstance(value, dict) and list(value) == ["code"] and isinstance(value["code"], str):
        return value["code"]
    return argument


def result_text(outcome: Outcome, most: int) -> str:
    """What the model reads: an error first, so that failed calls are told apart."""
    printed = outcome.printed
    if outcome.error:
        after = f"\nprinted before: {printed}" if printed else ""
        return f"{ERROR}{outcome.error}{after}"[:most]
    return (printed + outcome.value)[:most].strip("\n") or NOTHING
