"""Extraction over several processes, in order, whatever a page does to its process.

Results come back in the order of the documents, so the number of workers changes the time and nothing else.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue

from llmstages.plugins.corpus.extract import Extracted, Job, Settings, can_limit_time, extract
from llmstages.stage import StageError

SMALL = 200   # below this many documents, starting processes costs more than they save
CHUNK = 8     # documents sent at a time
PATIENCE = 10 # the worker limits its own CPU time; this many times that, in wall time, ends a parser that never returns


class Worker:
    """One extraction process; started on use, and again after a page killed it."""

    command = ("-m", "llmstages.plugins.corpus.worker")

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, jobs: list[Job], settings: Settings) -> list[Extracted]:
        """Extract all jobs. A page that hangs or crashes the process gets a rule; the rest goes to a fresh process."""
        done: list[Extracted] = []
        while len(done) < len(jobs):
            self._attempt(jobs[len(done):], settings, done)
        return done

    def _attempt(self, jobs: list[Job], settings: Settings, done: list[Extracted]) -> None:
        process = self.process or self._start()
        wall = settings.seconds * PATIENCE
        hung = threading.Event()

        def kill() -> None:
            hung.set()
            process.kill()

        try:
            pickle.dump((settings, jobs), process.stdin)
            process.stdin.flush()
            for _ in jobs:
                timer = threading.Timer(wall, kill)
                timer.start()
                try:
                    done.append(pickle.load(process.stdout))
                finally:
                    timer.cancel()
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code, self.process = process.wait(), None
            rule, limit = ("timeout", f"<= {wall:g} s") if hung.is_set() else ("crashed", "extraction without a crash")
            done.append(Extracted("", rule, code, limit))

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [sys.executable, *self.command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path})
        try:
            pickle.load(process.stdout)  # the worker says that its imports are done
        except EOFError:
            raise StageError("the extraction process ended before its first page (its error is above); "
                             "mend the installation of trafilatura, or extract in this process with corpus.workers=1") from None
        self.process = process
        return process

    def close(self) -> None:
        """End the process and wait for it."""
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()


def extract_all(jobs: Iterable[Job], number: int, settings: Settings, workers: int = 0) -> Iterator[Extracted]:
    """The texts of ``number`` jobs in order. workers: processes; 0 takes one a CPU, or none for a small number."""
    workers = workers or (1 if number < SMALL else os.cpu_count() or 1)
    if workers == 1 and can_limit_time():
        yield from (extract(*job, settings) for job in jobs)
        return
    jobs, free, pending = iter(jobs), SimpleQueue(), deque()
    pool = [Worker() for _ in range(workers)]
    for worker in pool:
        free.put(worker)

    def serve(chunk: list[Job]) -> list[Extracted]:
        worker = free.get()
        try:
            return worker.run(chunk, settings)
        finally:
            free.put(worker)

    try:
        with ThreadPoolExecutor(workers) as threads:
            while True:
                while len(pending) < 4 * workers and (chunk := list(islice(jobs, CHUNK))):
                    pending.append(threads.submit(serve, chunk))
                if not pending:
                    return
                yield from pending.popleft().result()
    finally:
        for worker in pool:
            worker.close()
