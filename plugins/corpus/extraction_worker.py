"""A process that extracts pages until its input ends: a pickled (settings, extractor, jobs) in, one pickled result a page out.

Killed when a page hangs or crashes the parser. From the main process it is a fresh interpreter, which needs no
``if __name__ == "__main__"`` in the user's script and inherits no threads and locks of a process that runs torch; from a
process that was itself forked to work on the corpus it is another fork, which has the parser loaded already.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
from functools import cache
from typing import Any


def main() -> None:
    """Serve jobs from standard input. Results go to a private copy of standard output; prints of libraries do not."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, out)


def serve(jobs_in: Any, out: Any) -> None:
    """Answer until the input ends, "ready" first."""
    from llmstages.core.errors import StageError
    from llmstages.core.registry import load_component
    from llmstages.plugins.corpus.extraction import extract

    @cache
    def extractor(spec: tuple[tuple[str, Any], ...]) -> Any:
        made = load_component("extractors", dict(spec))
        gc.collect()
        gc.freeze()  # the parsers are there to stay; looking through them again and again for garbage takes time
        gc.set_threshold(50_000)  # as do the many small objects of a page that die with it
        return made

    limit = cache(_limit_memory)  # once, from what is in use before the first page
    _send(out, "ready")
    while True:
        try:
            settings, spec, jobs = pickle.load(jobs_in)
        except EOFError:
            return
        try:
            use = extractor(
                spec
            )  # before the first page, so that its import is not on the page's clock
        except StageError as error:
            _send(out, error)
            return
        limit(settings.memory_mb)
        for job in jobs:
            _limit_time(2 * settings.seconds + 1)
            found = extract(*job, settings, use)
            _limit_time(0)
            _send(out, found)


def _send(out: Any, value: Any) -> None:
    pickle.dump(value, out)
    out.flush()


def _limit_time(seconds: float) -> None:
    """End this process after so many seconds of CPU time: a loop inside a C library answers no other signal."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(megabytes: int) -> None:
    """Let this process grow by so much; what it holds already (a fork of a process with torch: gigabytes of addresses) does not count."""
    with contextlib.suppress(
        ImportError, ValueError, OSError
    ):  # not everywhere, and never above the system's own limit
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(
            resource.RLIMIT_AS,
            (used + (megabytes << 20), resource.getrlimit(resource.RLIMIT_AS)[1]),
        )


if __name__ == "__main__":
    main()
