"""A process that extracts pages until its input ends: a pickled (settings, jobs) in, one pickled result a page out.

A plain subprocess instead of multiprocessing, because it needs no ``if __name__ == "__main__"`` in the user's script,
inherits no threads and locks of a process that runs torch, and can be killed when a page hangs or crashes the parser.
"""

from __future__ import annotations

import os
import pickle
import sys


def main() -> None:
    """Serve jobs from standard input. Results go to a private copy of standard output; prints of libraries do not."""
    from llmstages.plugins.corpus.extract import extract

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import trafilatura  # noqa: F401  (before the first page, so that its import is not on the page's clock)

    pickle.dump("ready", out)
    out.flush()
    while True:
        try:
            settings, jobs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        for job in jobs:
            pickle.dump(extract(*job, settings), out)
            out.flush()


if __name__ == "__main__":
    main()
