"""Checkpoints of a training step: each a sealed folder, the newest whole one counts, a damaged one is named and passed over.

A Trainer saves straight into the folder that it later resumes from, so a process killed while it saves leaves one that looks
like a checkpoint and is none (8 of 10 kills made resuming fail for good). Here its folder is a draft: ``keep`` seals it,
gives it its name by one rename, and only then lets an older one go. No torch in here; resume.py trains.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.core import atomic
from llmstages.core.errors import StageError

FOLDER = "checkpoints"  # in a step's work folder
PREFIX = "update-"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint. about: what was noted with it (update, processes, rows of a micro batch, versions)."""

    path: Path
    about: Mapping[str, Any]

    @property
    def update(self) -> int:
        """Optimizer updates done."""
        return int(self.about["update"])


def keep(draft: Path, folder: Path, about: Mapping[str, Any], last: int = 2) -> Path:
    """Turn a draft into the checkpoint of ``about["update"]``; of the older ones only the newest ``last - 1`` stay."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / f"{PREFIX}{int(about['update']):08d}"
    if home.exists():  # left by a run that was ended before it could go on from it
        atomic.remove(home)
    atomic.seal(draft, home, about)
    if wrong := atomic.damage(home):
        raise StageError(
            f"a checkpoint was written and reads back otherwise ({wrong}): the disk or the memory of this machine is at fault"
        )
    for old in _all(folder)[max(1, last) :]:
        atomic.remove(old)
    return home


def newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint; every file of it is read. Damaged ones are named and set aside."""
    for home in _all(folder):
        wrong = atomic.damage(home)
        if wrong is None:
            about = atomic.read_manifest(home)
            if home.name == f"{PREFIX}{about.get('update', -1):08d}":
                return Checkpoint(home, about)
            wrong = f"it is noted as that of update {about.get('update')}"
        aside = next(
            name
            for number in range(1 << 20)
            if not (name := folder / f"damaged-{home.name}.{number}").exists()
        )
        os.rename(home, aside)
        say(f"checkpoint damaged: {wrong}; set aside as {aside.name}, the one before it is used")
    return None


def drafts(work: Path) -> list[Path]:
    """What Trainers have begun to save."""
    return [path for path in work.glob("checkpoint-*") if path.is_dir()]


def clear(work: Path) -> None:
    """Remove drafts, which nobody can resume from."""
    for path in drafts(work):
        shutil.rmtree(path, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob(PREFIX + "*") if path.is_dir()), reverse=True)
