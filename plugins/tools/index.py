"""The search index of a tools artifact: a folder that a component of the group indexes fills.

``index.json`` in it says which component with which settings, so that whoever opens the artifact
needs no configuration. An index of another version is refused, since it may hold other columns or
other words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.registry import code_version, component_config, load_component
from llmstages.data.passages import Page, Passage, split

FOLDER = "index"  # of a tools artifact
FACTS = "index.json"
FORMAT = 2  # 1 was a single file of whole pages
FILE_OF_FORMAT_1 = "index.sqlite"
CHARACTERS = 600  # of a passage: what the tool search shows by default
DEFAULT = {"use": "fts5"}


def build(
    folder: Path,
    pages: Iterable[Page | str],
    spec: Mapping[str, Any] | None = None,
    characters: int = CHARACTERS,
    overlap: int = 0,
) -> dict[str, int]:
    """Write an index of pages.

    Args:
        folder: where to write; it is created.
        pages: pages, or their texts. A page that came before, of equal text and address, is left
            out.
        spec: the component and its settings, ``{"use": "fts5", "language": "en"}``.
        characters, overlap: as in ``passages.split``.

    Returns:
        the numbers of ``pages`` indexed, of ``repeated`` ones left out, of ``empty`` ones, and of
        ``passages``.
    """
    from llmstages.data import tables

    spec = dict(spec or DEFAULT)
    counts: dict[str, int] = dict.fromkeys(("pages", "repeated", "empty", "passages"), 0)
    folder.mkdir(parents=True)
    component = load_component("indexes", spec)
    component.build(folder, _passages(pages, characters, overlap, counts))
    facts = {
        "format": FORMAT,
        "index": spec,
        "version": code_version(type(component)),
        "characters": characters,
        "overlap": overlap,
        **counts,
    }
    tables.write_json(folder / FACTS, facts)
    return counts


def _passages(
    pages: Iterable[Page | str], characters: int, overlap: int, counts: dict[str, int]
) -> Iterator[Passage]:
    """The passages of pages, each page once; what there was is counted."""
    seen: set[str] = set()
    for page in pages:
        page = Page(page) if isinstance(page, str) else page
        if not page.text.strip():
            counts["empty"] += 1
            continue
        if page.id in seen:
            counts["repeated"] += 1
            continue
        seen.add(page.id)
        counts["pages"] += 1
        for passage in split(page, characters, overlap):
            counts["passages"] += 1
            yield passage


class Index:
    """Look passages up by words; the best match first.

    Args:
        folder: the index. ``Index.of(artifact)`` opens the one of a tools artifact.

    Raises:
        StageError: there is none, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        facts = _facts(folder)
        cls, config = component_config("indexes", facts["index"])
        if facts["version"] != code_version(cls):
            raise StageError(_outdated(folder, f"version {facts['version']} of its component"))
        self._component: Any = cls(config)
        self._component.open(folder)

    @classmethod
    def of(cls, artifact: Path) -> Index:
        """The index of a tools artifact."""
        if not (artifact / FOLDER).exists() and (artifact / FILE_OF_FORMAT_1).exists():
            raise StageError(_outdated(artifact / FILE_OF_FORMAT_1, "an older version"))
        return cls(artifact / FOLDER)

    def search(self, query: str, limit: int = 1) -> list[Passage]:
        """Passages that share words with the query, at most ``limit``."""
        return list(self._component.find(query, limit))

    def find(self, query: str, limit: int = 1) -> list[str]:
        """The texts of ``search``."""
        return [passage.text for passage in self.search(query, limit)]


def _facts(folder: Path) -> dict[str, Any]:
    """What ``index.json`` of an index says."""
    if folder.is_file():
        raise StageError(_outdated(folder, "an older version"))
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StageError(
            f"there is no search index at {folder}; it is made by a step with tools=search_tokens"
        ) from error
    except ValueError as error:
        raise StageError(f"{folder / FACTS} is damaged ({error}); {_AGAIN}") from error
    if facts.get("format") != FORMAT:
        raise StageError(_outdated(folder, f"format {facts.get('format')}"))
    return facts


_AGAIN = "make it again: run the recipe again, or llmstages redo STEP"


def _outdated(path: Path, made_by: str) -> str:
    return f"the search index at {path} was made by {made_by} and cannot be read; {_AGAIN}"
