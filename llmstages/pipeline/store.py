"""Finished steps on disk: whole or absent, never half.

A step is made in ``.tmp/KEY/out`` under a lock, its files are digested and flushed, ``record.json`` is written last,
and one rename puts the folder in place. Killing the process at any moment leaves either the finished folder or a
leftover that the next run clears (``work`` stays, for resuming). Left out on purpose: NFS, where neither flock nor
rename keep these promises, and any deletion the user did not ask for.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmstages.core.atomic import flush as _flush
from llmstages.core.digest import canonical, sha256, sha256_file
from llmstages.core.errors import StageError
from llmstages.core.secrets import mask
from llmstages.train.checkpoints import FOLDER, PREFIX

RECORD = "record.json"


class Store:
    """A folder of finished steps, ``STEP-FINGERPRINT``, shared by all runs."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._records: dict[str, dict[str, Any]] = {}

    def folder(self, key: str) -> Path:
        """Where a finished step lies."""
        return self.path / key

    def temporary(self, key: str) -> Path:
        """Where a step is made: ``out`` becomes the artifact, ``work`` survives an interruption."""
        return self.path / ".tmp" / key

    @property
    def cache(self) -> Path:
        """Where steps share derived data that is no result (cache.py)."""
        return self.path / ".cache"

    def has_work(self, key: str) -> bool:
        """Whether an interrupted run left checkpoints to go on from."""
        return any((self.temporary(key) / "work" / FOLDER).glob(PREFIX + "*"))

    def record(self, key: str) -> dict[str, Any]:
        """The record of a finished step."""
        if key not in self._records:
            self._records[key] = json.loads((self.folder(key) / RECORD).read_text(encoding="utf-8"))
        return self._records[key]

    def keys(self) -> list[str]:
        """All finished steps."""
        return sorted(p.parent.name for p in self.path.glob(f"*/{RECORD}"))

    def records(self, step: str = "") -> Iterator[dict[str, Any]]:
        """Records of all finished steps, or of those of one name. An unreadable one is skipped: verify reports it."""
        for key in self.keys():
            if not step or key.rpartition("-")[0] == step:
                try:
                    record = self.record(key)
                except ValueError:
                    continue
                if "identity" in record:
                    yield {**record, "key": key}

    def damage(self, key: str) -> str | None:
        """None if the step is here and whole (by file sizes), "" if it is absent, otherwise what is wrong with it."""
        if not (self.folder(key) / RECORD).exists():
            return ""
        try:
            files = self.record(key)["files"]
        except (ValueError, KeyError):
            return f"damaged: {key}/{RECORD} cannot be read; made again"
        for name, (size, _) in files.items():
            path = self.folder(key) / name
            if not path.is_file():
                return f"damaged: {key}/{name} is gone; made again"
            if path.stat().st_size != size:
                return f"damaged: {key}/{name} has {path.stat().st_size} bytes, recorded {size}; made again"
        return None

    def verify(self, key: str) -> list[str]:
        """Read every file again and compare digests; returns what is wrong."""
        if damage := self.damage(key):
            return [damage.removesuffix("; made again")]
        files = self.record(key)["files"]
        return [
            f"{key}/{name} is not what was written (its SHA-256 differs)"
            for name, (_, digest) in files.items()
            if sha256_file(self.folder(key) / name) != digest
        ]

    @contextmanager
    def making(
        self, key: str, waiting: Callable[[str], None] = lambda line: None
    ) -> Iterator[Path]:
        """Hold the step's lock and yield its temporary folder with an empty ``out``. One writer a step, whoever starts first."""
        try:
            (self.path / ".locks").mkdir(parents=True, exist_ok=True)
            lock = open(
                self.path / ".locks" / f"{key}.lock", "w"
            )  # never deleted: a lock that is deleted can be held twice
        except OSError as error:
            raise StageError(
                f"cannot write to the store {str(self.path)!r}: {error.strerror}. Choose another: store=FOLDER"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(f"another run is making {key}; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            folder = self.temporary(key)
            with self._disk(folder):
                shutil.rmtree(folder / "out", ignore_errors=True)
                (folder / "work").mkdir(parents=True, exist_ok=True)
                (folder / "out").mkdir()
                yield folder
                if self.damage(key) is None:
                    shutil.rmtree(folder, ignore_errors=True)

    def commit(self, key: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Turn ``out`` into the finished step; call inside making(). Returns the record as written."""
        out = self.temporary(key) / "out"
        files = {}
        for path in sorted(out.rglob("*")):
            if path.is_symlink():
                raise StageError(
                    f"{path.relative_to(out)} is a link; an artifact must hold its files itself"
                )
            if path.is_file():
                files[path.relative_to(out).as_posix()] = [path.stat().st_size, sha256_file(path)]
                _flush(path)
        whole = {**mask(dict(record)), "files": files, "digest": sha256(canonical(files))}
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
        (out / RECORD).write_text(text + "\n", encoding="utf-8")
        for path in (out / RECORD, *(p for p in out.rglob("*") if p.is_dir()), out):
            _flush(path)
        self.forget(key)  # only ever a damaged one
        os.rename(out, self.folder(key))
        _flush(self.path)
        self._records[key] = whole
        return whole

    def tidy(self, key: str) -> None:
        """Remove what a process killed just after its commit left beside a finished step."""
        if self.temporary(key).exists():
            with self.making(key):
                pass

    def forget(self, key: str) -> None:
        """Remove a finished step: the rename makes it disappear at once, whatever happens to the removal."""
        self._records.pop(key, None)
        if self.folder(key).exists():
            trash = self.path / ".tmp" / f"{key}.removed-{os.getpid()}"
            trash.parent.mkdir(parents=True, exist_ok=True)
            os.rename(self.folder(key), trash)
            shutil.rmtree(trash)

    def link(self, runs: Path | str, name: str, step: str, key: str) -> Path:
        """Point ``runs/NAME/STEP`` at a finished step, so that people read names."""
        link = Path(runs) / name / step
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self.folder(key).resolve(), link.parent.resolve())
        if link.is_symlink() and os.readlink(link) == target:
            return link
        aside = link.with_name(f".{step}.{os.getpid()}")
        aside.symlink_to(target)
        os.replace(aside, link)
        return link

    @contextmanager
    def _disk(self, folder: Path) -> Iterator[None]:
        """A full disk is one clear message, and the half-made step gives its space back."""
        try:
            yield
        except (
            Exception
        ) as error:  # not every library raises OSError: safetensors and Arrow have their own
            if getattr(error, "errno", None) not in (
                errno.ENOSPC,
                errno.EDQUOT,
            ) and "No space left on device" not in str(error):
                raise
            written = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            kept = folder / "work" / FOLDER  # what training goes on from once there is room
            for path in (
                (folder / "out", *(folder / "work").glob("*")) if kept.is_dir() else (folder,)
            ):
                if path != kept:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            free = shutil.disk_usage(self.path).free
            raise StageError(
                f"the disk of the store {str(self.path)!r} is full: the step had written {written / 1e6:.1f} MB and needs more; "
                f"{free / 1e6:.1f} MB are free now that its temporary folder is removed. Free space or choose store=FOLDER, "
                "then run again: finished steps are kept"
            ) from error
