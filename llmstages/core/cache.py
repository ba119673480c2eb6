"""Derived data that the runs of one store share: made once, used whole, never an artifact.

``CACHE/KEY/`` is a sealed folder (atomic.py). Its content follows from the key, so nothing in
here is ever out of date, and any of it may be deleted: it is made again. A lock for each key lets
one process make it while others wait. Left out on purpose: removal by age or size.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llmstages.core.atomic import damage, seal
from llmstages.core.errors import StageError
from llmstages.core.locks import held


def cached(
    cache: Path,
    key: str,
    make: Callable[[Path], None],
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The folder of ``key``; ``make(folder)`` fills it where it is absent or damaged.

    Damage is reported through ``say``.
    """
    home = cache / key
    if damage(home) is None:
        return home
    with _locked(cache, key, say):
        problem = damage(home)
        if problem is None:  # the process that we waited for has made it
            return home
        if problem:
            say(f"cache: {problem}; made again")
        # What is damaged, and what killed processes began
        for leftover in (home, *cache.glob(f".{key}.*.part")):
            shutil.rmtree(leftover, ignore_errors=True)
        _fill(home, cache / f".{key}.{os.getpid()}.part", make)
    return home


def _fill(home: Path, part: Path, make: Callable[[Path], None]) -> None:
    """Make it aside, seal it, rename it. After a failure nothing stays: the disk may be full."""
    try:
        part.mkdir(parents=True)
        make(part)
        seal(part, home)
    except FileNotFoundError as error:
        if part.exists():
            raise
        raise StageError(
            f"{home.parent} was removed while {home.name} was written there; "
            "run again, nothing else is lost"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _locked(cache: Path, key: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a key."""
    path = cache / f".{key}.lock"
    while True:
        cache.mkdir(parents=True, exist_ok=True)
        with held(path, f"cache: another process is making {key}", say):
            # The cache may have been deleted while we waited, lock and all: then nobody else sees
            # it.
            if path.exists():
                yield
                return
