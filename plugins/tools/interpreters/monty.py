"""The interpreter pydantic-monty: a Python of its own that has no files, network or processes.

It runs in a worker process that is killed when it leaves its limits. Clock and random numbers are
the same in every call, so that a program gives the same result whenever it runs. It knows most of
the language (no generator functions, no inheritance, few modules) and names what it does not know.

It cannot be used in a process that was forked after its first use: that hangs the child and may end
the parent (measured with pydantic-monty 1.4.0), so it is refused there.
"""

from __future__ import annotations

import atexit
import datetime as dt
import os
import threading
from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.plugins.tools.interpreters import Limits, Outcome

GRACE = 0.5  # seconds that a worker may take longer before it is killed
REPLY_SECONDS = 2.0  # that it may take to hand over its result
MAX_RECURSION = 200
PROGRAMS_PER_WORKER = 500
CLOCK = dt.datetime(2026, 1, 1)
PLAIN_VALUES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)


class Monty:
    """One pool of workers for each process, started at the first program."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pool: Any = None
        self._owner = 0  # id of the process that started the pool
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the workers."""
        import pydantic_monty

        with self._lock:
            if self._pool is None:
                pool = pydantic_monty.Monty(
                    min_processes=1,
                    max_processes=2,
                    request_timeout=self.limits.seconds + REPLY_SECONDS,
                    feed_duration_limit_grace=GRACE,
                    max_checkouts_per_worker=PROGRAMS_PER_WORKER,
                )
                pool.__enter__()
                self._pool, self._owner = pool, os.getpid()
                atexit.register(self.stop)
            elif self._owner != os.getpid():
                raise StageError(
                    "the tool python (engine=monty) was used before this process was forked, and "
                    "monty does not survive a fork; start processes by spawn, or set engine=cpython"
                )

    def stop(self) -> None:
        """End the workers."""
        if self._pool is not None and self._owner == os.getpid():
            atexit.unregister(self.stop)
            self._pool.__exit__(None, None, None)
            self._pool = None

    def run(self, program: str, earlier: Sequence[str] = ()) -> Outcome:
        """Run a program after earlier ones, whose output is not shown again."""
        import pydantic_monty

        self.start()
        limits = {
            "max_feed_duration_secs": self.limits.seconds,
            "max_memory": self.limits.memory_mb << 20,
            "max_recursion_depth": MAX_RECURSION,
            "max_suspensions": 1,
            "max_total_sleep_secs": 0.0,
        }
        policy = {"datetime": CLOCK, "sleep": "zero", "random_start": {"seed": 0}}
        output = _Beginning(self.limits.max_output)
        value = error = ""
        try:
            with self._pool.checkout(limits=limits, os_policy=policy) as session:
                for one in earlier:
                    _feed_quietly(session, one)
                result = session.feed_run(program, print_callback=output)
            value = _text(result)
        except (pydantic_monty.MontyRuntimeError, pydantic_monty.MontySyntaxError) as failure:
            error = failure.display(format="type-msg")
        except pydantic_monty.MontyCrashedError:
            error = "MemoryError or TimeoutError: the program was ended at its limits"
        # Among them values that cannot be handed over, such as one nested 10,000 deep.
        except (pydantic_monty.MontyError, ValueError, RecursionError, UnicodeError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        return Outcome(output.text, value, error)


def _feed_quietly(session: Any, program: str) -> None:
    """Run an earlier program again for the names that it sets; its error was shown then."""
    import pydantic_monty

    try:
        session.feed_run(program, print_callback=_Beginning(0))
    except (pydantic_monty.MontyRuntimeError, pydantic_monty.MontySyntaxError):
        return


def _text(value: Any) -> str:
    """The text of a value that came back: a str as it is, others as Python writes them."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, PLAIN_VALUES) else str(value)


class _Beginning:
    """Keeps the beginning of the output. It does not raise, since that would not end a program."""

    def __init__(self, most: int) -> None:
        self.text = ""
        self._most = most

    def __call__(self, stream: str, text: str) -> None:
        self.text += text[: self._most - len(self.text)]
