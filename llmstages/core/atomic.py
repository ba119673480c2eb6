"""Folders that are whole or not there: written aside, sealed by a list of their files, put in place by one rename.

The list (DONE) is written last and holds the size and SHA-256 of every file, read back from the disk, and its own; nothing counts as there
whose files are not exactly those. A rename is the only step that shows, so a process may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmstages.core.digest import canonical, sha256, sha256_file

MANIFEST = "done.json"


def seal(part: Path, home: Path, about: Mapping[str, Any] | None = None) -> None:
    """List and flush the files of ``part``, then rename it to ``home``. about: noted beside the list. Raises OSError of the disk."""
    written = sorted(path for path in part.rglob("*") if path.is_file())
    files = {
        path.relative_to(part).as_posix(): [path.stat().st_size, sha256_file(path)]
        for path in written
    }
    listed = {**(about or {}), "files": files}
    (part / MANIFEST).write_text(
        json.dumps({**listed, "digest": sha256(canonical(listed))}, indent=1) + "\n",
        encoding="utf-8",
    )
    for path in (*part.rglob("*"), part):
        flush(path)
    os.rename(part, home)
    flush(home.parent)


def damage(home: Path) -> str | None:
    """None if every file is what was written (each is read again), "" if the folder is absent, otherwise what is wrong."""
    if not home.is_dir():
        return ""
    try:
        listed = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
        if listed.pop("digest") != sha256(canonical(listed)):
            return f"{home.name}/{MANIFEST} is not what was written (its SHA-256 differs)"
        files = listed["files"]
        for name, (size, digest) in files.items():
            path = home / name
            if path.stat().st_size != size:
                return f"{home.name}/{name} has {path.stat().st_size} bytes, recorded {size}"
            if sha256_file(path) != digest:
                return f"{home.name}/{name} is not what was written (its SHA-256 differs)"
        strange = {
            path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()
        } - {*files, MANIFEST}
    except FileNotFoundError as error:
        return f"{home.name}/{Path(error.filename).name} is gone"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{home.name}/{MANIFEST} cannot be read"
    return f"{home.name}/{min(strange)} does not belong there" if strange else None


def read_manifest(home: Path) -> dict[str, Any]:
    """What was noted when the folder was sealed."""
    return {
        key: value
        for key, value in json.loads((home / MANIFEST).read_text(encoding="utf-8")).items()
        if key not in ("files", "digest")
    }


def remove(home: Path) -> None:
    """Delete a sealed folder, its list first, so that half of it never counts."""
    (home / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(home, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
