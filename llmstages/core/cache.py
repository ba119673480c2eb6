"""Derived data that runs of one store share: made at most once, used whole or not at all, never an artifact.

``CACHE/KEY/`` is a sealed folder (sealed.py). The key names all that the content follows from, so nothing in here is ever out of
date, and any of it may be deleted: it is made again. A lock a key lets one process make it; the others wait for it.
Left out on purpose: any removal by itself, and file systems where flock or rename do not keep their promises (NFS).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmstages.core.atomic import damage, seal
from llmstages.core.errors import StageError


def cached(
    cache: Path,
    key: str,
    make: Callable[[Path], None],
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The folder of ``key``; ``make(folder)`` fills it where it is absent or damaged, and the damage is said."""
    home = cache / key
    if damage(home) is None:
        return home
    with _alone(cache, key, say):
        wrong = damage(home)
        if wrong is None:  # the one we waited for has made it
            return home
        if wrong:
            say(f"cache: {wrong}; made again")
        for left in (
            home,
            *cache.glob(f".{key}.*.part"),
        ):  # what is damaged, and what a killed process began
            shutil.rmtree(left, ignore_errors=True)
        _fill(home, cache / f".{key}.{os.getpid()}.part", make)
    return home


def _fill(home: Path, part: Path, make: Callable[[Path], None]) -> None:
    """Make aside, seal, rename. Whatever goes wrong, nothing stays: a full disk gets its space back."""
    try:
        part.mkdir(parents=True)
        make(part)
        seal(part, home)
    except FileNotFoundError as error:
        if part.exists():
            raise
        raise StageError(
            f"{home.parent} was removed while {home.name} was being written there; run again, nothing else is lost"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _alone(cache: Path, key: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the key's lock. The cache may have been deleted while we waited, lock and all; then the lock is taken anew."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f".{key}.lock"
    while True:
        with open(path, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"cache: another process is making {key}; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                yield
                return
