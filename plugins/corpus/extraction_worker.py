"""A process that extracts pages until its input ends.

In goes a pickled (settings, extractor, jobs), out comes one pickled result for each job. It is
killed if a page hangs or crashes the parser. From the main process it is a fresh interpreter, which
needs no ``if __name__ == "__main__"`` in the user's script and inherits no threads and locks of a
process that runs torch; from a process that was itself forked to work on the corpus it is another
fork, which has the parser loaded already.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from functools import cache
from typing import Any


def main() -> None:
    """Serve jobs from standard input.

    Results go to a private copy of standard output, which prints of libraries do not reach.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, out)


def serve(jobs_in: Any, results_out: Any) -> None:
    """Answer until the input ends, "ready" first."""
    from llmstages.core.errors import StageError
    from llmstages.core.limits import limit_memory, limit_time
    from llmstages.plugins.corpus.extraction import Extracted, extract

    open_extractor = cache(_open_extractor)
    limit_once = cache(limit_memory)  # once, from what is in use before the first page
    _send(results_out, "ready")
    while True:
        try:
            settings, spec, jobs = pickle.load(jobs_in)
        except EOFError:
            return
        try:
            # Before the first page, so that its import is not part of the page's time.
            extractor = open_extractor(spec)
        except StageError as error:
            _send(results_out, error)
            return
        limit_once(settings.memory_mb)
        for body, media, charset, url in jobs:
            limit_time(2 * settings.seconds + 1)
            result: Extracted = extract(body, media, charset, url, settings, extractor)
            limit_time(0)
            _send(results_out, result)


def _open_extractor(spec: tuple[tuple[str, Any], ...]) -> Any:
    from llmstages.core.registry import load_component

    extractor = load_component("extractors", dict(spec))
    # The parsers stay, so searching them again and again for garbage wastes time. So does a
    # collection for every few hundred of the many small objects that die with their page.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    return extractor


def _send(out: Any, value: Any) -> None:
    pickle.dump(value, out)
    out.flush()


if __name__ == "__main__":
    main()
