"""Limits on a process that works on what others wrote: CPU time, memory, and patience.

Python's own signal handlers do not run while a C library is in a loop, and a limit inside the
process does not end one that sleeps. So there are both: the process limits itself, and the one that
waits for it has a watchdog.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

# The worker limits its own CPU time. This many times that, in wall time, ends one that sleeps.
PATIENCE = 10


def limit_time(seconds: float) -> None:
    """End this process after some seconds of CPU time; 0: never."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(megabytes: int) -> None:
    """Let this process grow by some megabytes.

    What it holds already does not count: a fork of a process with torch has gigabytes of addresses.
    """
    # Not every system can do this, and no limit may be above the system's own.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (megabytes << 20)
        _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))


def child_environment() -> dict[str, str]:
    """The environment of a fresh interpreter that must find the same packages as this one.

    Those that were added at run time count as well.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path}


class Watchdog:
    """Kills a process that has not answered for some seconds. restart() starts counting anew."""

    def __init__(self, process: Any, seconds: float) -> None:
        self.process = process
        self.seconds = seconds
        self.hung = False
        self._over = threading.Event()
        self.restart()
        threading.Thread(target=self._wait, daemon=True).start()

    def restart(self) -> None:
        """The process has answered."""
        self._deadline = time.monotonic() + self.seconds

    def stop(self) -> None:
        """The process has answered everything."""
        self._over.set()

    def _wait(self) -> None:
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            if self._over.wait(left):
                return
        self.hung = True
        self.process.kill()
