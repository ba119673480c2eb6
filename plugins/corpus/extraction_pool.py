"""One warm extraction process for each process that works on the corpus.

It is started on use, kept for later batches and steps (starting an interpreter takes longer than
extracting twenty pages), and replaced if a page ends it.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.limits import PATIENCE, Watchdog, child_environment
from llmstages.plugins.corpus.extraction import Extracted, Settings, dropped
from llmstages.plugins.corpus.extraction_worker import serve

Job = tuple[bytes, str, str, str]  # body, media, declared charset, url
Spec = tuple[tuple[str, Any], ...]  # an extractor: (("use", name), ...its fields)
CHUNK_JOBS = 16  # sent at a time
CHUNK_BYTES = 16_000_000


class Worker:
    """One extraction process; started on use, and again after a page killed it."""

    command = ("-m", "llmstages.plugins.corpus.extraction_worker")

    def __init__(self) -> None:
        self.process: Any = None

    def run(self, jobs: Sequence[Job], settings: Settings, extractor: Spec) -> list[Extracted]:
        """Extract all jobs.

        A page that hangs or crashes the process gets a rule; the rest goes to a fresh process.
        """
        results: list[Extracted] = []
        for chunk in _chunks(jobs):
            chunk_results: list[Extracted] = []
            # Each attempt ends with the chunk, or with the page that ended the process.
            while len(chunk_results) < len(chunk):
                self._attempt(chunk[len(chunk_results) :], settings, extractor, chunk_results)
            results += chunk_results
        return results

    def _attempt(
        self, jobs: Sequence[Job], settings: Settings, extractor: Spec, results: list[Extracted]
    ) -> None:
        """Append the results of the jobs, up to the first that ends the process."""
        process = self.process = self.process or self._start()
        watchdog = Watchdog(process, (settings.seconds or 60) * PATIENCE)
        try:
            pickle.dump((settings, extractor, jobs), process.stdin)
            process.stdin.flush()
            for _ in jobs:
                watchdog.restart()
                result = pickle.load(process.stdout)
                if isinstance(result, StageError):
                    self.close()
                    raise result
                results.append(result)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = process.wait()
            self.process = None
            # SIGPROF is the worker's own limit on CPU time.
            if watchdog.hung or code == -signal.SIGPROF:
                limit = f"<= {settings.seconds:g} s of CPU time"
                results.append(dropped("timeout", settings.seconds, limit))
            else:
                results.append(dropped("crashed", code, "extraction without a crash"))
        finally:
            watchdog.stop()

    def _start(self) -> Any:
        if _is_corpus_fork():
            process: Any = Fork()
        else:
            process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment(),
            )
        try:
            pickle.load(process.stdout)  # sent when its imports are done
        except EOFError:
            raise StageError(
                "the extraction process ended before its first page (its error is above); "
                "fix the installation"
            ) from None
        return process

    def close(self) -> None:
        """End the process and wait for it."""
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None


class Fork:
    """A forked worker with the methods of a Popen.

    multiprocessing is not used, since its pools do not let their processes have children.
    """

    def __init__(self) -> None:
        jobs_out, jobs_in = os.pipe()
        results_out, results_in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(jobs_in)
                os.close(results_out)
                serve(os.fdopen(jobs_out, "rb"), os.fdopen(results_in, "wb"))
                code = 0
            finally:
                os._exit(code)
        os.close(jobs_out)
        os.close(results_in)
        self.stdin = os.fdopen(jobs_in, "wb")
        self.stdout = os.fdopen(results_out, "rb")

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _is_corpus_fork() -> bool:
    """Whether this process was forked off to work on the corpus, without torch or threads."""
    # datasets and datatrove both use this library.
    process = sys.modules.get("multiprocess.process")
    return hasattr(os, "fork") and process is not None and process.parent_process() is not None


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    chunk: list[Job] = []
    size = 0
    for job in jobs:
        chunk.append(job)
        size += len(job[0])
        if len(chunk) == CHUNK_JOBS or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


_workers: dict[int, Worker] = {}  # process id -> its worker


def shared() -> Worker:
    """The worker of this process; a forked child does not use its parent's."""
    pid = os.getpid()
    if pid not in _workers:
        _workers[pid] = Worker()
        atexit.register(_workers[pid].close)
    return _workers[pid]
