"""Lists of domains, addresses, words and parts of words in the URL; runs before extraction.

Source: FineWeb and RefinedWeb filter by the UT1 blocklist and by words in the URL (Penedo et al.
2023, appendix G.1): one hard word suffices, of soft ones two. The lists here (url_*.txt) are a
small start written for this project, not UT1: name your own. Words are compared whole, so that
Essex and Scunthorpe pass; an entry of several words is matched in a row (``adult videos`` finds
adult-videos.example and leaves adult education alone). An entry of a list of domains covers what
is below it.
"""

from __future__ import annotations

import dataclasses as dc
import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.filtering import Document, Drop, Verdict

WORD = re.compile(r"[^\W_\d]+")
FRONT = re.compile(r"(?:https?:)?(?://)?(?:www\.)?")
COMMENT = re.compile(r"(?:^|\s)#")
MIDDLE = {"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"}  # of example.co.uk


class URL:
    """Drops pages whose address is listed, in whole or in part."""

    @dc.dataclass(frozen=True)
    class Config:
        blocklist: str = option(
            "",
            "a file of domains (with a dot), words and phrases, one a line, # for comments; it may"
            " end in .gz",
            file=True,
        )
        domains: str = option("", "a file of domains and hosts, as above", file=True)
        urls: str = option(
            "",
            "a file of whole addresses; scheme, www., fragment and the slash at the end do not"
            " matter",
            file=True,
        )
        words: str = option("", "a file of words and phrases that suffice alone", file=True)
        soft_words: str = option("", "a file of words that count only together", file=True)
        substrings: str = option(
            "", "a file of strings searched in the URL without its punctuation", file=True
        )
        min_soft_words: int = option(2, "different soft words that suffice", ge=1)
        shipped: bool = option(True, "use the small lists that come with llmstages")

    kind = "judge"
    version = "2"
    early = True

    def __init__(self, config: Config) -> None:
        own = Path(__file__).parent if config.shipped else None
        self.config = config
        mixed = list(_lines("blocklist", config.blocklist))
        domains = list(_lines("domains", config.domains, own))
        words = list(_lines("words", config.words, own))
        for entry in mixed:
            (domains if "." in entry else words).append(entry)
        self._domains = {entry.removeprefix("www.") for entry in domains}
        self._most_labels = max((entry.count(".") + 1 for entry in self._domains), default=0)
        self._urls = {_bare(entry) for entry in _lines("urls", config.urls)}
        self._words = {entry for entry in words if " " not in entry}
        self._phrases = [" ".join(entry.split()) for entry in words if " " in entry]
        self._soft = set(_lines("soft_words", config.soft_words, own))
        self._substrings = list(_lines("substrings", config.substrings))

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [self._judge(document.url) for document in documents]

    def _judge(self, url: str) -> Verdict:
        try:
            host = (urlsplit(url).hostname or "").lower()
        except ValueError as error:  # an unclosed bracket, say: no browser opens it either
            return Drop("invalid", f"{url[:100]}: {error}", "a URL")
        labels = host.rstrip(".").split(".")
        # A host longer than every entry is compared by its end alone, so its length costs nothing.
        for start in range(max(0, len(labels) - self._most_labels), len(labels) - 1):
            domain = ".".join(labels[start:])
            if domain in self._domains:
                rule = "domain" if _registered(labels[start:]) else "subdomain"
                return Drop(rule, domain, "a domain that is not listed")
        if self._urls and _bare(url.lower()) in self._urls:
            return Drop("url", url[:200], "an address that is not listed")
        words = WORD.findall(url.lower())
        listed = self._listed_word(words)
        if listed:
            return Drop("word", listed, "no listed word in the URL")
        soft = dict.fromkeys(word for word in words if word in self._soft)
        if len(soft) >= self.config.min_soft_words:
            return Drop(
                "soft_words",
                ", ".join(soft),
                f"< {self.config.min_soft_words} different soft words in the URL",
            )
        if self._substrings:
            letters = "".join(filter(str.isalnum, url.lower()))
            for part in self._substrings:
                if part in letters:
                    return Drop("substring", part, "no listed part in the URL")
        return None

    def _listed_word(self, words: Sequence[str]) -> str:
        """The first listed word or phrase among the words of a URL, or ""."""
        for word in words:
            if word in self._words:
                return word
        joined = f" {' '.join(words)} "
        for phrase in self._phrases:
            if f" {phrase} " in joined:
                return phrase
        return ""


def _bare(url: str) -> str:
    """An address without what does not matter."""
    return FRONT.sub("", url.partition("#")[0], count=1).rstrip("/")


def _registered(labels: Sequence[str]) -> bool:
    """Whether these labels look like a name that is registered: example.com, example.co.uk."""
    if len(labels) == 3:
        return len(labels[2]) == 2 and labels[1] in MIDDLE
    return len(labels) == 2


def _lines(field: str, given: str, own: Path | None = None) -> Iterator[str]:
    """Entries of the shipped list and of one's own, in lower case, without comments."""
    if own:
        yield from _entries(own / f"url_{field}.txt")
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise StageError(
                f"filters.url.{field}={given}: there is no such file; it holds one entry a line"
            )
        yield from _entries(path)


def _entries(path: Path) -> Iterator[str]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace")
    for line in text.splitlines():
        entry = COMMENT.split(line, maxsplit=1)[0].strip().lower()
        if entry:
            yield entry
