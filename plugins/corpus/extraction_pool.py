"""One warm extraction process for each process that works on the corpus, replaced when a page ends it.

Started on use and kept for later batches and steps, because starting an interpreter takes longer than extracting twenty pages.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.plugins.corpus.extraction import Extracted, Settings
from llmstages.plugins.corpus.extraction_worker import serve

Job = tuple[bytes, str, str, str]  # body, media, declared charset, url
Spec = tuple[tuple[str, Any], ...]  # an extractor: (("use", name), ...its fields)
CHUNK, CHUNK_BYTES = 16, 16_000_000  # sent at a time
PATIENCE = 10  # the worker limits its own CPU time; this many times that, in wall time, ends one that sleeps for ever


class Worker:
    """One extraction process; started on use, and again after a page killed it."""

    command = ("-m", "llmstages.plugins.corpus.extraction_worker")

    def __init__(self) -> None:
        self.process: Any = None

    def run(self, jobs: Sequence[Job], settings: Settings, extractor: Spec) -> list[Extracted]:
        """Extract all jobs. A page that hangs or crashes the process gets a rule; the rest goes to a fresh process."""
        done: list[Extracted] = []
        for chunk in _chunks(jobs):
            mine: list[Extracted] = []
            while len(mine) < len(chunk):
                self._attempt(chunk[len(mine) :], settings, extractor, mine)
            done += mine
        return done

    def _attempt(
        self, jobs: Sequence[Job], settings: Settings, extractor: Spec, done: list[Extracted]
    ) -> None:
        self.process = process = self.process or self._start()
        watch = Watch(process, (settings.seconds or 60) * PATIENCE)
        try:
            pickle.dump((settings, extractor, jobs), process.stdin)
            process.stdin.flush()
            for _ in jobs:
                watch.again()
                found = pickle.load(process.stdout)
                if isinstance(found, StageError):
                    self.close()
                    raise found
                done.append(found)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code, self.process = process.wait(), None
            if watch.hung or code == -signal.SIGPROF:  # the worker's own limit on CPU time
                done.append(
                    Extracted(
                        "", "timeout", settings.seconds, f"<= {settings.seconds:g} s of CPU time"
                    )
                )
            else:
                done.append(Extracted("", "crashed", code, "extraction without a crash"))
        finally:
            watch.over.set()

    def _start(self) -> Any:
        if _forked():
            process: Any = Fork()
        else:
            path = os.pathsep.join(entry for entry in sys.path if entry)
            process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
        try:
            pickle.load(process.stdout)  # the worker says that its imports are done
        except EOFError:
            raise StageError(
                "the extraction process ended before its first page (its error is above); mend the installation"
            ) from None
        return process

    def close(self) -> None:
        """End the process and wait for it."""
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None


class Watch:
    """Kills a process that has not answered for so many seconds (``again`` starts counting anew) until it is over."""

    def __init__(self, process: Any, seconds: float) -> None:
        self.process, self.seconds, self.hung, self.over = (
            process,
            seconds,
            False,
            threading.Event(),
        )
        self.again()
        threading.Thread(target=self._wait, daemon=True).start()

    def again(self) -> None:
        """It has answered."""
        self.deadline = time.monotonic() + self.seconds

    def _wait(self) -> None:
        while (left := self.deadline - time.monotonic()) > 0:
            if self.over.wait(left):
                return
        self.hung = True
        self.process.kill()


class Fork:
    """A forked worker with the face of a Popen. (The pools of multiprocessing do not let their processes have children.)"""

    def __init__(self) -> None:
        ours, theirs = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(ours[1])
                os.close(theirs[0])
                serve(os.fdopen(ours[0], "rb"), os.fdopen(theirs[1], "wb"))
                code = 0
            finally:
                os._exit(code)
        os.close(ours[0])
        os.close(theirs[1])
        self.stdin, self.stdout = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _forked() -> bool:
    """Whether this process was forked off to work on the corpus, with nothing of torch or threads in it."""
    process = sys.modules.get(
        "multiprocess.process"
    )  # datasets and datatrove both use this library
    return hasattr(os, "fork") and process is not None and process.parent_process() is not None


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    chunk: list[Job] = []
    size = 0
    for job in jobs:
        chunk.append(job)
        size += len(job[0])
        if len(chunk) == CHUNK or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


_mine: dict[int, Worker] = {}


def shared() -> Worker:
    """The worker of this process; a forked child does not use its parent's."""
    if os.getpid() not in _mine:
        _mine[os.getpid()] = Worker()
        atexit.register(_mine[os.getpid()].close)
    return _mine[os.getpid()]
