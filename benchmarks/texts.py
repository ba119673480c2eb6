"""Real text on any machine without a network: the docs of installed packages.

First the READMEs of packages and the topics of pydoc, then the docstrings of every module (a
module is a document), then, where that is not enough, whole source files. Sorted by name, so one
machine gives one list. It is technical English with code in it: fit for speed and for equality,
not for judging quality.
"""

from __future__ import annotations

import importlib.metadata
import re
import site
import sysconfig
from collections.abc import Iterator
from pathlib import Path

QUOTED = re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', re.DOTALL)
SHORTEST = 200  # characters of a document


def texts(minimum_bytes: int) -> list[str]:
    """Documents of at least ``minimum_bytes`` in all, each once; SystemExit for fewer."""
    found: dict[str, None] = {}
    size = 0
    for text in _sources():
        text = text.strip()
        if len(text) >= SHORTEST and text not in found:
            found[text] = None
            size += len(text.encode())
            if size >= minimum_bytes:
                return list(found)
    raise SystemExit(
        f"the installed packages hold only {size / 1e6:.0f} MB of text, and"
        f" {minimum_bytes / 1e6:.0f} MB were asked for; ask for less, or give files of your own"
    )


def _sources() -> Iterator[str]:
    for package in sorted(
        importlib.metadata.distributions(), key=lambda d: str(d.metadata["Name"]).lower()
    ):
        yield str(package.metadata.get_payload() or "")
    from pydoc_data.topics import topics

    yield from (topics[name] for name in sorted(topics))
    files = _modules()
    for path in files:
        yield "\n\n".join(a or b for a, b in QUOTED.findall(_read(path)))
    for path in files:
        yield _read(path)


def _modules() -> list[Path]:
    folders = dict.fromkeys(
        [*map(Path, site.getsitepackages()), Path(sysconfig.get_paths()["stdlib"])]
    )
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if path.is_file()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (
        UnicodeDecodeError,
        OSError,
    ):  # a handful of files in test folders are broken on purpose
        return ""
