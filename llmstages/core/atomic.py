"""Folders that are whole or not there: written aside, sealed by a manifest, then renamed.

The manifest is written last. It holds the size and SHA-256 of every file, read back from the
disk, and a digest of itself. A folder counts only if its files are exactly those. The rename is
the only step that others can see, so a process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmstages.core.digest import canonical, sha256, sha256_file

MANIFEST = "done.json"


def seal(part: Path, home: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write the manifest of ``part``, flush its files, and rename it to ``home``.

    Args:
        about: further facts to keep in the manifest.

    Raises:
        OSError: the disk is full or failed; ``home`` does not appear.
    """
    follow_umask(part)
    files = {}
    for path in sorted(part.rglob("*")):
        if path.is_file():
            name = path.relative_to(part).as_posix()
            files[name] = [path.stat().st_size, sha256_file(path)]
    manifest: dict[str, Any] = {**(about or {}), "files": files}
    manifest["digest"] = sha256(canonical(manifest))
    text = json.dumps(manifest, indent=1) + "\n"
    (part / MANIFEST).write_text(text, encoding="utf-8")
    for path in (*part.rglob("*"), part):
        flush(path)
    part.rename(home)
    flush(home.parent)


def damage(home: Path) -> str | None:
    """What is wrong with a sealed folder: None if nothing is, "" if it is absent.

    Every file is read again.
    """
    if not home.is_dir():
        return ""
    try:
        manifest = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("digest") != sha256(canonical(manifest)):
            return f"{home.name}/{MANIFEST} is not what was written (its SHA-256 differs)"
        files = manifest["files"]
        for name, (size, digest) in files.items():
            if problem := _file_damage(home / name, size, digest):
                return f"{home.name}/{name} {problem}"
        present = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    except FileNotFoundError as error:
        return f"{home.name}/{Path(error.filename).name} is gone"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{home.name}/{MANIFEST} cannot be read"
    unlisted = present - {*files, MANIFEST}
    if unlisted:
        return f"{home.name}/{min(unlisted)} does not belong there"
    return None


def _file_damage(path: Path, size: int, digest: str) -> str:
    actual = path.stat().st_size
    if actual != size:
        return f"has {actual} bytes, recorded {size}"
    if sha256_file(path) != digest:
        return "is not what was written (its SHA-256 differs)"
    return ""


def read_manifest(home: Path) -> dict[str, Any]:
    """The further facts that were given to seal()."""
    manifest = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
    return {key: value for key, value in manifest.items() if key not in ("files", "digest")}


def remove(home: Path) -> None:
    """Delete a sealed folder, its manifest first, so that half of it never counts."""
    (home / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(home, ignore_errors=True)


def follow_umask(folder: Path) -> None:
    """Give all that lies in a folder the permissions that the umask gave to the folder itself.

    Libraries write through temporary files, which only their owner may read, and rename them.
    """
    allowed = folder.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode & 0o777
        executable = 0o111 if path.is_dir() else mode & 0o111
        wanted = allowed & (0o666 | executable)
        if mode != wanted:
            # Some file systems of other systems have no permissions to set.
            with contextlib.suppress(OSError):
                path.chmod(wanted)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
