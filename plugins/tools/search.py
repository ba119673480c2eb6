"""tool search: ``<SEARCH_START>query<SEARCH_END>`` gives the best page of the index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmstages.core.stage import option
from llmstages.plugins.tools.index import Index


@dataclass(frozen=True)
class SearchConfig:
    results: int = option(1, "pages put into the context", ge=1)
    max_characters: int = option(600, "characters of them at most", ge=1)


class Search:
    """Looks up pages in the index of the tools artifact."""

    Config = SearchConfig
    version = "1"

    def __init__(self, config: SearchConfig) -> None:
        self.config = config
        self.index: Index | None = None

    def open(self, folder: Path) -> None:
        """Get ready to be called."""
        self.index = Index(folder / "index.sqlite")

    def __call__(self, argument: str) -> str:
        found = self.index.find(argument, self.config.results) if self.index else []
        return " ".join(found)[: self.config.max_characters] or "nothing found"
