"""How a process of a step ends: exit codes, the file that says why, and an exit that skips C++ destructors."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

STOPPED = "stopped.json"  # beside step.json: the update that was saved before leaving
REQUEUE = 75  # EX_TEMPFAIL


def hard_exit(code: int) -> NoReturn:
    """End this process with all that Python does at exit, without what C++ does then: of processes that torch spreads one was seen to abort there,
    for a thread still ran ("terminate called without an active exception"), which torchrun tells as a failure."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
