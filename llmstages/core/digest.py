"""Digests of files, remembered by path and state, so that plans do not reread gigabytes."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near

# Path -> [size, two times, inode, digest] of what this process has read, for plans without a
# store yet
_of_this_process: dict[str, list[Any]] = {}
SHOWN_NAMES = 8  # file names listed in an error message


def canonical(value: Any) -> str:
    """Canonical JSON.

    Raises:
        StageError: JSON cannot say the value, so it could not be fingerprinted the same way twice.
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise StageError(
            f"a Config may hold only what JSON can say (text, numbers, lists, maps): {error}"
        ) from error


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def data_files(folder: Path) -> list[Path]:
    """The files in a folder and below it, sorted, without those that other programs leave there.

    Names that begin with a dot (.ipynb_checkpoints, .~lock.x#, ._x) or, as Spark writes them, with
    an underscore (_SUCCESS, _temporary), __MACOSX and copies of editors (x~, #x#) are no data.
    """
    files = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith((".", "_", "#")) or part.endswith("~") for part in parts)
        if not is_hidden and path.is_file():
            files.append(path)
    return sorted(files)


class Digests:
    """Digests of files and folders, remembered in a JSON file beside the store (or nowhere)."""

    def __init__(self, cache: Path | None = None) -> None:
        self.cache = cache
        self.known: dict[str, Any] = {}
        self.changed = False
        if cache and cache.exists():
            try:
                self.known = json.loads(cache.read_text())
            except ValueError:
                self.known = {}  # it is only a cache: a torn write costs one more read

    def file(self, path: Path) -> str:
        """Digest of one file."""
        info = path.stat()
        key = str(path.resolve())
        # Times of change and names can be set back (cp -p, touch -r), these two cannot.
        stamp = [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]
        if self.known.get(key, [None])[:-1] != stamp:
            seen = _of_this_process.get(key, [None])
            digest = seen[-1] if seen[:-1] == stamp else sha256_file(path)
            self.known[key] = _of_this_process[key] = [*stamp, digest]
            self.changed = True
        return self.known[key][-1]

    def folder(self, path: Path) -> str:
        """Digest of a folder: the relative names and contents of its data files.

        record.json says when and where the folder was made, so it does not count.
        """
        files = [file for file in data_files(path) if file.name != "record.json"]
        return sha256(canonical([[p.relative_to(path).as_posix(), self.file(p)] for p in files]))

    def path(self, path: Path) -> str:
        """Digest of a file or folder.

        The name of a file counts too: it decides how the file is read, and the ids of its rows
        hold it.
        """
        if path.is_dir():
            return self.folder(path)
        return sha256(canonical([path.name, self.file(path)]))

    def field(self, where: str, value: Any) -> Any:
        """What a ``file=True`` option contributes to a fingerprint: digests in order, no path.

        Args:
            where: the dotted key, for messages.
            value: a path or glob, a list of them, an address, or nothing.
        """
        if value is None or value == "":
            return None
        if isinstance(value, (list, tuple)):
            return [self.field(where, item) for item in value]
        text = str(value)
        if "://" in text:
            return text  # a remote address: its content cannot be read while planning
        # pathlib globs below a folder only, and the pattern may be absolute.
        pattern = str(Path(text).expanduser())
        # A file that exists is meant, also where its name has brackets.
        if Path(pattern).exists():
            return [self.path(Path(pattern))]
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not matches:
            raise StageError(f"{where}: no file {text!r}.{_nearby(text)}")
        return [self.path(Path(match)) for match in matches]

    def recheck(self) -> Iterator[tuple[str, bool]]:
        """Read every remembered file again: (path, whether its content is what is remembered).

        What is wrong or gone is forgotten, so that the next plan reads it.
        """
        for key, entry in list(self.known.items()):
            path = Path(key)
            is_same = path.is_file() and sha256_file(path) == entry[-1]
            if not is_same:
                del self.known[key]
                _of_this_process.pop(key, None)
                self.changed = True
            yield key, is_same or not path.exists()

    def save(self) -> None:
        """Write the cache, if something is new and there is a place for it."""
        if self.cache and self.changed and self.cache.parent.is_dir():
            temporary = self.cache.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(self.known))
            temporary.replace(self.cache)


def _nearby(text: str) -> str:
    """Near file names in the same folder, or where the path stops to exist."""
    path = Path(text).expanduser()
    existing = path.parent
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    if existing != path.parent:
        return (
            f" The folder {str(path.parent)!r} does not exist either "
            f"(looked in {str(existing.resolve())!r})"
        )
    names = sorted(p.name for p in existing.iterdir())[:200]
    listed = ", ".join(names[:SHOWN_NAMES]) or "nothing"
    return f"{near(path.name, names)} The folder {str(existing)!r} has: {listed}"
