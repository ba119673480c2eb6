"""Addresses that say what the page is: a list of domains and of words. Runs before extraction, on the URL alone.

Source: FineWeb and RefinedWeb filter by the UT1 blocklist and by words in the URL (Penedo et al. 2023, appendix G.1).
The lists here (url_domains.txt, url_words.txt) are a small start written for this project, not UT1: name your own with
``blocklist``. Words are compared whole, so that Essex and Scunthorpe pass; an entry of several words is matched in a row
(``adult videos`` finds adult-videos.example and leaves adult education alone).
"""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from llmstages.plugins.corpus.filter import Document, Drop, Verdict
from llmstages.stage import StageError, option


class URL:
    """Drops pages whose host is listed or whose URL holds a listed word."""

    @dc.dataclass(frozen=True)
    class Config:
        blocklist: str = option("", "a file of more domains (with a dot), words and phrases, one a line, # for comments", file=True)
        shipped: bool = option(True, "use the small lists that come with llmstages")

    kind = "judge"
    version = "1"
    early = True

    def __init__(self, config: Config) -> None:
        self.domains: set[str] = set()
        self.words: set[str] = set()
        self.phrases: list[str] = []
        if config.shipped:
            for name in ("url_domains.txt", "url_words.txt"):
                self._add(Path(__file__).with_name(name))
        if config.blocklist:
            path = Path(config.blocklist).expanduser()
            if not path.is_file():
                raise StageError(f"filters.url.blocklist={config.blocklist}: there is no such file; it holds one domain or word a line")
            self._add(path)

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [self._judge(document.url) for document in documents]

    def _add(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = line.split("#")[0].strip().lower()
            if "." in entry:
                self.domains.add(entry.removeprefix("www."))
            elif " " in entry:
                self.phrases.append(" ".join(entry.split()))
            elif entry:
                self.words.add(entry)

    def _judge(self, url: str) -> Verdict:
        try:
            host = (urlsplit(url).hostname or "").lower()
        except ValueError as error:  # an unclosed bracket, say: no browser opens it either
            return Drop("invalid", f"{url[:100]}: {error}", "a URL")
        labels = host.split(".")
        for start in range(len(labels) - 1):
            domain = ".".join(labels[start:])
            if domain in self.domains:
                return Drop("domain", domain, "a domain that is not listed")
        words = re.findall(r"[^\W_\d]+", url.lower())
        joined = f" {' '.join(words)} "
        word = next((word for word in words if word in self.words), "") or next((p for p in self.phrases if f" {p} " in joined), "")
        return Drop("word", word, "no listed word in the URL") if word else None
