"""How the process of a step ends: its exit codes, the file that says why, and the exit itself."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

STOPPED = "stopped.json"  # beside step.json: the update that was saved before the process ended
FAILED = 1  # a step failed, or a check
REQUEUE = 75  # EX_TEMPFAIL: the work is saved, start again
INTERRUPTED = 130  # after Ctrl-C, as in shells: 128 + SIGINT


def hard_exit(code: int) -> NoReturn:
    """End this process with what Python does at exit, but without C++ destructors.

    With several processes, torch was seen to abort in them ("terminate called without an active
    exception"), because one of its threads still ran; torchrun reports that as a failure.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
