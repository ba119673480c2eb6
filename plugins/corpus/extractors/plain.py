"""All visible text of a page, menus included: nothing is judged, nothing is lost."""

from __future__ import annotations

import dataclasses as dc

from llmstages.core.stage import option


class Plain:
    """Everything a reader of the page could see."""

    @dc.dataclass(frozen=True)
    class Config:
        clean: bool = option(True, "leave out scripts, styles and hidden elements")

    version = "1"

    def __init__(self, config: Config) -> None:
        from trafilatura import html2txt

        self._extract = html2txt
        self.config = config

    def extract(self, source: str, url: str) -> str:
        return self._extract(source, clean=self.config.clean) or ""
