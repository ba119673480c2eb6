"""Finished steps on disk: whole or absent, never half.

A step is made in ``.tmp/KEY/out`` under a lock. Its files are digested and flushed, ``record.json``
is written last, and one rename puts the folder in place. A process killed at any moment leaves
either the finished folder or a leftover that the next run clears (``work`` stays, for resuming).
Left out on purpose: file systems where locks or renames do not keep their promises (NFS), and any
deletion that the user did not ask for.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from llmstages.core.artifacts import CHECKPOINT_PREFIX, CHECKPOINTS
from llmstages.core.atomic import flush, follow_umask
from llmstages.core.digest import canonical, sha256, sha256_file
from llmstages.core.errors import StageError
from llmstages.core.locks import held
from llmstages.core.secrets import mask

RECORD = "record.json"
RUNS_FOLDERS = ".runs"  # a file of paths: what is linked from there is in use
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Store:
    """A folder of finished steps, ``STEP-FINGERPRINT``, shared by all runs."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._records: dict[str, dict[str, Any]] = {}

    def folder(self, key: str) -> Path:
        """The folder of a finished step."""
        return self.path / key

    def temporary(self, key: str) -> Path:
        """The folder in which a step is made.

        ``out`` becomes the artifact; ``work`` survives an interruption.
        """
        return self.path / ".tmp" / key

    def lock_file(self, key: str) -> Path:
        """The file of a step's lock.

        It is never deleted: two processes could hold a lock that was deleted in between.
        """
        return self.path / ".locks" / f"{key}.lock"

    @property
    def cache(self) -> Path:
        """Where steps share derived data that is not a result (core/cache.py)."""
        return self.path / ".cache"

    def has_work(self, key: str) -> bool:
        """Whether an interrupted run left checkpoints to continue from."""
        folder = self.temporary(key) / "work" / CHECKPOINTS
        return any(folder.glob(CHECKPOINT_PREFIX + "*"))

    def record(self, key: str) -> dict[str, Any]:
        """The record of a finished step."""
        if key not in self._records:
            text = (self.folder(key) / RECORD).read_text(encoding="utf-8")
            self._records[key] = json.loads(text)
        return self._records[key]

    def keys(self) -> list[str]:
        """The keys of all finished steps."""
        return sorted(record.parent.name for record in self.path.glob(f"*/{RECORD}"))

    def records(self, step: str = "") -> Iterator[dict[str, Any]]:
        """Records of all finished steps, or of those of one name.

        A record that cannot be read is skipped; verify() reports it.
        """
        for key in self.keys():
            if step and key.rpartition("-")[0] != step:
                continue
            try:
                record = self.record(key)
            except ValueError:
                continue
            if "identity" in record:
                yield {**record, "key": key}

    def damage(self, key: str) -> str | None:
        """None if the step is whole by the sizes of its files, "" if it is absent.

        Otherwise the text says what is wrong, and that the step is made again.
        """
        problem = self._problem(key)
        return f"damaged: {problem}; made again" if problem else problem

    def _problem(self, key: str) -> str | None:
        if not (self.folder(key) / RECORD).exists():
            return ""
        try:
            files = self.record(key)["files"]
        except (ValueError, KeyError):
            return f"{key}/{RECORD} cannot be read"
        for name, (size, _) in files.items():
            path = self.folder(key) / name
            if not path.is_file():
                return f"{key}/{name} is missing"
            actual = path.stat().st_size
            if actual != size:
                return f"{key}/{name} has {actual} bytes, recorded {size}"
        return None

    def verify(self, key: str) -> list[str]:
        """Read every file of a finished step again; return what differs from its record."""
        if problem := self._problem(key):
            return [f"damaged: {problem}"]
        differing = []
        for name, (_, digest) in self.record(key)["files"].items():
            if sha256_file(self.folder(key) / name) != digest:
                differing.append(f"{key}/{name} is not what was written (its SHA-256 differs)")
        return differing

    @contextmanager
    def making(
        self, key: str, waiting: Callable[[str], None] = lambda line: None
    ) -> Iterator[Path]:
        """Hold the lock of a step and yield its temporary folder, with an empty ``out`` in it.

        A step has one writer at a time. If another process holds the lock, ``waiting`` gets a
        message.
        """
        with self._locked(key, waiting):
            folder = self.temporary(key)
            with self._explain_full_disk(folder):
                shutil.rmtree(folder / "out", ignore_errors=True)
                (folder / "work").mkdir(parents=True, exist_ok=True)
                (folder / "out").mkdir()
                yield folder
                # Without a commit the work stays, so that the next run can resume.
                if self.damage(key) is None:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self, key: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock of a step."""
        path = self.lock_file(key)
        with ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(path, f"another run is making {key}", waiting))
            except OSError as error:
                raise StageError(
                    f"cannot write to the store {str(self.path)!r}: {error.strerror}. "
                    "Choose another: store=FOLDER"
                ) from error
            yield

    def commit(self, key: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Turn ``out`` into the finished step; call it inside making().

        Returns:
            The record as it was written.
        """
        out = self.temporary(key) / "out"
        follow_umask(out)
        files = _digest_and_flush(out)
        whole = {**mask(dict(record)), "files": files, "digest": sha256(canonical(files))}
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
        # The record comes after all other files are on the disk: with it, the step counts.
        (out / RECORD).write_text(text + "\n", encoding="utf-8")
        flush(out / RECORD)
        for path in out.rglob("*"):
            if path.is_dir():
                flush(path)
        flush(out)
        self.forget(key)  # if there is one, it is damaged
        out.rename(self.folder(key))
        flush(self.path)
        self._records[key] = whole
        return whole

    def tidy(self, key: str) -> None:
        """Remove what a process killed just after its commit left beside a finished step."""
        if self.temporary(key).exists():
            with self.making(key):
                pass

    def forget(self, key: str) -> None:
        """Remove a finished step.

        A rename makes it disappear at once, even if the removal is interrupted.
        """
        self._records.pop(key, None)
        if not self.folder(key).exists():
            return
        trash = self.path / ".tmp" / f"{key}.removed-{os.getpid()}"
        trash.parent.mkdir(parents=True, exist_ok=True)
        self.folder(key).rename(trash)
        shutil.rmtree(trash)

    def link(self, runs: Path | str, name: str, step: str, key: str) -> Path:
        """Point ``runs/NAME/STEP`` at a finished step, so that people read names."""
        link = Path(runs) / name / step
        link.parent.mkdir(parents=True, exist_ok=True)
        self._remember_runs(Path(runs).resolve())
        target = os.path.relpath(self.folder(key).resolve(), link.parent.resolve())
        if link.is_symlink() and str(link.readlink()) == target:
            return link
        # Made aside and renamed, so that the name never points to nothing.
        new_link = link.with_name(f".{step}.{os.getpid()}")
        new_link.symlink_to(target)
        new_link.replace(link)
        return link

    def runs_folders(self) -> list[Path]:
        """The folders in which runs link to this store, as far as it was told."""
        try:
            text = (self.path / RUNS_FOLDERS).read_text(encoding="utf-8")
        except OSError:
            return []
        return [Path(line) for line in dict.fromkeys(text.splitlines()) if Path(line).is_dir()]

    def _remember_runs(self, runs: Path) -> None:
        if runs not in self.runs_folders():
            with (self.path / RUNS_FOLDERS).open("a", encoding="utf-8") as file:
                file.write(f"{runs}\n")

    @contextmanager
    def _explain_full_disk(self, folder: Path) -> Iterator[None]:
        """Turn a full disk into one clear message, and free the space of the half-made step."""
        try:
            yield
        except Exception as error:  # safetensors and Arrow raise errors of their own, not OSError
            if not _is_disk_full(error):
                raise
            written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            _remove_all_but_checkpoints(folder)
            free = shutil.disk_usage(self.path).free
            raise StageError(
                f"the disk of the store {str(self.path)!r} is full: the step had written "
                f"{written / 1e6:.1f} MB and needs more; {free / 1e6:.1f} MB are free now that its "
                "temporary folder is removed. Free space or choose store=FOLDER, then run again: "
                "finished steps are kept"
            ) from error


def _digest_and_flush(out: Path) -> dict[str, list[Any]]:
    """File name -> [size, SHA-256] of every file of a folder."""
    files = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_symlink():
            raise StageError(f"{name} is a link; an artifact must hold its files itself")
        if path.is_file():
            files[name] = [path.stat().st_size, sha256_file(path)]
            flush(path)
    return files


def _is_disk_full(error: Exception) -> bool:
    return getattr(error, "errno", None) in DISK_FULL or "No space left on device" in str(error)


def _remove_all_but_checkpoints(folder: Path) -> None:
    """Clear the temporary folder of a step; training continues from its checkpoints."""
    checkpoints = folder / "work" / CHECKPOINTS
    if not checkpoints.is_dir():
        shutil.rmtree(folder)
        return
    for path in (folder / "out", *(folder / "work").glob("*")):
        if path == checkpoints:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
