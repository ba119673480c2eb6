"""Content digests of files, remembered by path, size and time of change, so that a plan does not reread gigabytes."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near


def canonical(value: Any) -> str:
    """Canonical JSON. Anything JSON cannot say is refused: it could not be fingerprinted the same way twice."""
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise StageError(
            f"a Config may hold only what JSON can say (text, numbers, lists, maps): {error}"
        ) from error


def sha256(text: str) -> str:
    """Hex digest of text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Digests:
    """Digests of files and folders, cached in one JSON file beside the store (or nowhere)."""

    def __init__(self, cache: Path | None = None) -> None:
        self.cache, self.known, self.fresh = cache, {}, False
        if cache and cache.exists():
            try:
                self.known = json.loads(cache.read_text())
            except ValueError:
                self.known = {}  # only a cache: a torn write costs one more read

    def file(self, path: Path) -> str:
        """Digest of one file."""
        info, key = path.stat(), str(path.resolve())
        stamp = [info.st_size, info.st_mtime_ns]
        if self.known.get(key, [None])[:2] != stamp:
            self.known[key], self.fresh = [*stamp, sha256_file(path)], True
        return self.known[key][2]

    def folder(self, path: Path) -> str:
        """Digest of a folder: the relative names and contents of its files. record.json tells when and where, so it is left out."""
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "record.json")
        return sha256(canonical([[p.relative_to(path).as_posix(), self.file(p)] for p in files]))

    def path(self, path: Path) -> str:
        """Digest of a file or folder. A file's name counts too: it decides how it is read, and stands in the ids of what is read from it."""
        return (
            self.folder(path) if path.is_dir() else sha256(canonical([path.name, self.file(path)]))
        )

    def field(self, where: str, value: Any) -> Any:
        """What a ``file=True`` field contributes to a fingerprint: digests in order, no path."""
        if value is None or value == "":
            return None
        if isinstance(value, (list, tuple)):
            return [self.field(where, item) for item in value]
        text = str(value)
        if "://" in text:
            return text  # a remote address: its content cannot be read while planning
        matches = sorted(glob.glob(os.path.expanduser(text), recursive=True))
        if not matches:
            raise StageError(f"{where}: no file {text!r}.{_beside(text)}")
        return [self.path(Path(match)) for match in matches]

    def save(self) -> None:
        """Write the cache, if there is something new and somewhere to write it."""
        if self.cache and self.fresh and self.cache.parent.is_dir():
            temporary = self.cache.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(self.known))
            os.replace(temporary, self.cache)


def _beside(text: str) -> str:
    """Near file names in the same folder, or where the path stops to exist."""
    path = Path(os.path.expanduser(text))
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = sorted(p.name for p in parent.iterdir())[:200]
    if parent != path.parent:
        return f" The folder {str(path.parent)!r} does not exist either (looked in {str(parent.resolve())!r})"
    return (
        near(path.name, names)
        + f" The folder {str(parent)!r} has: {', '.join(names[:8]) or 'nothing'}"
    )
