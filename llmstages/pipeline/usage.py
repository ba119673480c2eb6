"""What lies in a store, how large it is, and what of it is in use.

A result is in use if a run links to it, or if a result in use was made from it. Work folders of
steps that failed or were interrupted lie beside the results.
"""

from __future__ import annotations

import dataclasses as dc
import os
import shutil
from pathlib import Path

from llmstages.core.locks import held_if_free
from llmstages.pipeline import history
from llmstages.pipeline.store import Store

REMOVED = ".removed-"  # in the name of a folder whose removal was interrupted


@dc.dataclass(frozen=True)
class StoredStep:
    """A finished step.

    Attributes:
        size: bytes of its files.
        runs: names of the runs that link to it.
        needed: it is in use.
    """

    key: str
    step: str
    kind: str
    size: int
    finished: float
    runs: tuple[str, ...]
    needed: bool


@dc.dataclass(frozen=True)
class Leftover:
    """The work folder of a step that is not finished.

    Attributes:
        size: bytes of its files.
        changed: when it was last written to, in seconds since the epoch.
        has_checkpoints: the next run of the step continues from it.
        in_use: a live process holds the lock of the step.
    """

    key: str
    path: Path
    size: int
    changed: float
    has_checkpoints: bool
    in_use: bool


def stored_steps(store: Store, runs: Path | str) -> list[StoredStep]:
    """The finished steps, in the order in which they were finished.

    Args:
        runs: the folder of the runs of this command, beside those that the store knows of.
    """
    links = _links(store, Path(runs))
    needed = _needed(store, links)
    steps = []
    for record in store.records():
        key = record["key"]
        steps.append(
            StoredStep(
                key,
                str(record.get("step", key.rpartition("-")[0])),
                str(record.get("kind", "")),
                sum(size for size, _ in record["files"].values()),
                float(record.get("finished", 0)),
                tuple(links.get(key, ())),
                key in needed,
            )
        )
    return sorted(steps, key=lambda step: step.finished)


def leftovers(store: Store) -> list[Leftover]:
    """The work folders of steps that failed, were interrupted, or run at this moment."""
    found = []
    for path in sorted((store.path / ".tmp").glob("*")):
        key = path.name.partition(REMOVED)[0]
        size, changed = _size_and_time(path)
        with held_if_free(store.lock_file(key)) as is_free:
            in_use = not is_free
        has_checkpoints = REMOVED not in path.name and store.has_work(key)
        found.append(Leftover(key, path, size, changed, has_checkpoints, in_use))
    return found


def cache_size(store: Store) -> int:
    """Bytes of the derived data of a store, which may be deleted at any time."""
    return _size_and_time(store.cache)[0]


def remove_step(store: Store, key: str) -> bool:
    """Remove a finished step, unless another process holds its lock; returns whether it is gone."""
    with held_if_free(store.lock_file(key)) as is_free:
        if is_free:
            store.forget(key)
    return is_free


def remove_leftover(store: Store, leftover: Leftover) -> bool:
    """Remove a work folder, unless another process holds the lock of its step."""
    with held_if_free(store.lock_file(leftover.key)) as is_free:
        if is_free:
            shutil.rmtree(leftover.path, ignore_errors=True)
    return is_free


def _links(store: Store, runs: Path) -> dict[str, list[str]]:
    """Key -> names of the runs that link to it."""
    home = store.path.resolve()
    folders = {folder.resolve() for folder in (runs, *store.runs_folders()) if folder.is_dir()}
    links: dict[str, list[str]] = {}
    for folder in sorted(folders):
        for link in sorted(folder.glob("*/*")):
            target = link.resolve()
            if link.is_symlink() and target.parent == home:
                links.setdefault(target.name, []).append(link.parent.name)
    return links


def _needed(store: Store, links: dict[str, list[str]]) -> set[str]:
    """The keys that runs link to, and those that they were made from."""
    needed: set[str] = set()
    for key in links:
        if (store.folder(key)).is_dir():
            artifact = history.read_artifact(store.folder(key))
            needed.update(source.path.name for source in history.lineage(artifact))
    return needed


def _size_and_time(folder: Path) -> tuple[int, float]:
    """Bytes of the files of a folder, and when one of them was last written."""
    size, changed = 0, 0.0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                info = (Path(root) / name).lstat()
            except OSError:  # a process has just removed it
                continue
            size += info.st_size
            changed = max(changed, info.st_mtime)
    if not changed and folder.exists():
        changed = folder.stat().st_mtime
    return size, changed
