"""tool search: ``<SEARCH_START>query<SEARCH_END>`` gives the best passages of the index.

The plain text of what is found, as short pages are written; ``titles`` puts a numbered line with
title and address before each result. ``sources`` says after each call where its result comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmstages.core.stage import option
from llmstages.plugins.tools import results
from llmstages.plugins.tools.index import Index


@dataclass(frozen=True)
class SearchConfig:
    results: int = option(1, "passages put into the context, at most", ge=1)
    max_characters: int = option(
        600,
        "characters of them at most; of a longer passage the part with most words of the query is "
        "shown",
        ge=1,
    )
    titles: bool = option(
        False, "write a line `[1] title address` before each result, as far as the page has them"
    )


class Search:
    """Looks up passages in the index of the tools artifact.

    Attributes:
        sources: the passages in the last result, the best first: ``id`` of the passage (page id,
            colon, number), ``start`` (its first character in the page), ``source`` (id of the page
            in the artifact that was indexed), ``url`` and ``title``.
    """

    Config = SearchConfig
    version = "2"

    def __init__(self, config: SearchConfig) -> None:
        self.config = config
        self.index: Index | None = None
        self.sources: list[dict[str, object]] = []

    def open(self, folder: Path) -> None:
        """Get ready to be called."""
        self.index = Index.of(folder)

    def __call__(self, argument: str) -> str:
        found = self.index.search(argument, self.config.results) if self.index else []
        room = self.config.max_characters
        found = results.fitting(found, room)
        self.sources = results.sources(found)
        return results.shown(found, argument, room, self.config.titles)
