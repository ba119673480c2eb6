"""Checkpoints of a training step: sealed folders, of which the newest undamaged one counts.

A Trainer saves straight into the folder that it later resumes from. A process that is killed while
it saves leaves something that looks like a checkpoint but is not one; 8 of 10 kills made resuming
fail for good. Here the folder of the Trainer is a draft: ``keep`` seals it, names it by one
rename, and only then removes an older checkpoint. No torch is needed here; resume.py trains.
"""

from __future__ import annotations

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
    """An undamaged checkpoint.

    about: what was noted with it: update, processes, rows of a micro batch, versions.
    """

    path: Path
    about: Mapping[str, Any]

    @property
    def update(self) -> int:
        """Optimizer updates done."""
        return int(self.about["update"])


def keep(draft: Path, folder: Path, about: Mapping[str, Any], last: int = 2) -> Path:
    """Turn a draft into the checkpoint of ``about["update"]``.

    Only the newest ``last`` checkpoints stay, and at least one.

    Raises:
        StageError: the checkpoint is damaged right after it was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / _name(about["update"])
    if home.exists():  # left by a run that ended before it could continue from it
        atomic.remove(home)
    atomic.seal(draft, home, about)
    # Every file is read back: memory and disks can fail silently.
    damage = atomic.damage(home)
    if damage:
        raise StageError(
            f"a checkpoint differs from what was written ({damage}): the disk or the memory of "
            "this machine is at fault"
        )
    # Last of all, so that an undamaged checkpoint exists at every moment.
    for old in _newest_first(folder)[max(1, last) :]:
        atomic.remove(old)
    return home


def newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest undamaged checkpoint, of which every file was read; None if there is none.

    Damaged ones are reported and set aside.
    """
    for home in _newest_first(folder):
        damage = atomic.damage(home)
        if damage is None:
            about = atomic.read_manifest(home)
            update = about.get("update", -1)
            # A folder that was copied or renamed by hand is not the checkpoint of its name.
            if home.name == _name(update):
                return Checkpoint(home, about)
            damage = f"its manifest is that of update {about.get('update')}"
        aside = _unused(folder, f"damaged-{home.name}")
        home.rename(aside)
        say(f"checkpoint damaged: {damage}; set aside as {aside.name}, the one before it is used")
    return None


def drafts(work: Path) -> list[Path]:
    """Folders that Trainers have begun to save into."""
    return [path for path in work.glob("checkpoint-*") if path.is_dir()]


def clear(work: Path) -> None:
    """Remove drafts, from which nobody can resume."""
    for path in drafts(work):
        shutil.rmtree(path, ignore_errors=True)


def _name(update: int) -> str:
    return f"{PREFIX}{int(update):08d}"


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob(PREFIX + "*") if path.is_dir()), reverse=True)


def _unused(folder: Path, name: str) -> Path:
    number = 0
    while (folder / f"{name}.{number}").exists():
        number += 1
    return folder / f"{name}.{number}"
