"""Locks between processes, with what a person who waits wants to know: who holds it, since when."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmstages.core.console import format_seconds

EVERY = 60.0  # seconds between messages of a process that waits


@contextmanager
def held(path: Path, subject: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        path: of the lock; its folder exists.
        subject: who else may hold it and why: ``another run is making KEY``.
        waiting: gets a message while somebody else holds it, at first and every minute.

    Raises:
        OSError: the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _wait(lock, path, subject, waiting)
    try:
        _note_owner(path)
        yield
    finally:
        _owner_file(path).unlink(missing_ok=True)
        lock.release()


@contextmanager
def held_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of a file if nobody else does; yields whether it is held."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _wait(lock: Any, path: Path, subject: str, waiting: Callable[[str], None]) -> None:
    from filelock import Timeout

    start = time.monotonic()
    waiting(f"{subject}{_owner(path)}; waiting for it")
    while True:
        try:
            lock.acquire(timeout=EVERY)
            return
        except Timeout:
            elapsed = format_seconds(time.monotonic() - start)
            waiting(f"{subject}{_owner(path)}; waiting for {elapsed} now")


def _owner_file(path: Path) -> Path:
    # The lock itself is emptied by whoever tries to get it.
    return path.with_suffix(".owner")


def _note_owner(path: Path) -> None:
    owner = {"pid": os.getpid(), "host": os.uname().nodename, "since": time.time()}
    # It only informs: a full disk must not keep anybody from the lock.
    with contextlib.suppress(OSError):
        _owner_file(path).write_text(json.dumps(owner), encoding="utf-8")


def _owner(path: Path) -> str:
    """The holder for people: `` (process 123 on HOST, since 04:10)``; "" if it is not known."""
    try:
        owner = json.loads(_owner_file(path).read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["since"]))
        return f" (process {owner['pid']} on {owner['host']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
