"""Where a text stands in what a model was trained on: the pages, and the filters they passed.

The longest runs of words that the text shares with a document are looked for in the tables of the
model's lineage, as infini-gram does with an index (Liu et al. 2024). Here nothing is built: the
tables are read once, from the beginning, so the first answer needs no preparation; very large ones
are read in part, and the answer says so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.pipeline import history
from llmstages.pipeline.history import StoredArtifact
from llmstages.serve import document_trace, fields
from llmstages.serve.answers import answer_object
from llmstages.studio.lineage import step_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

WORD = re.compile(r"\w+(?:['’-]\w+)*")
LEAST_WORDS = 5  # of a run
MOST_CHARACTERS = 50_000_000  # of all tables that are read
MOST_TEXT = 10_000  # characters of the text that is traced
SHOWN_PAGES = 5  # of a run
SHOWN_RUNS = 30
AROUND = 160  # characters before and after a match
TRAINED_ON = ("corpus", "dialogues")


@dataclass
class Run:
    """Words of the text that stand in a document, as many as possible.

    Attributes:
        start, end: the places of its words in the text.
        documents: how many documents have it.
        pages: some of them.
    """

    start: int
    end: int
    documents: int = 0
    pages: list[dict[str, Any]] = field(default_factory=list)


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/trace: {model, text} -> runs of words and the pages that have them."""
    from starlette.routing import Route

    async def trace(request: Request) -> Response:
        return await answer_object(request, lambda given: traced(studio, given))

    return [Route("/api/trace", trace, methods=["POST"])]


def traced(studio: Studio, given: dict[str, Any]) -> dict[str, Any]:
    """The runs of a text in what a model was trained on.

    Returns:
        ``runs``: each with its ``begin`` and ``end`` in the text, in characters, ``words``,
        ``documents`` and ``pages``; ``sources``: the steps that were read, with their documents;
        ``read_all``: whether all of them was read; ``seconds``.

    Raises:
        StageError: the text has too few words, or nothing of the lineage is there.
    """
    model = step_of(studio, fields.text(given, "model", 500))
    text = fields.text(given, "text", MOST_TEXT)
    least = fields.whole(given, "words", LEAST_WORDS, 2, 50)
    words = list(WORD.finditer(text))
    if len(words) < least:
        raise StageError(f"the text has {len(words)} words; a run has {least} or more")
    sources = [found for found in history.lineage(model) if found.kind in TRAINED_ON]
    if not sources:
        raise StageError("nothing that the model was trained on is in the store")
    began = time.monotonic()
    finder = _Finder([word.group() for word in words], least)
    counts: dict[str, int] = {}
    budget = MOST_CHARACTERS
    for source in sources:
        counts[source.name] = 0
        for document in documents_of(source):
            if budget <= 0:
                break
            budget -= len(document["text"])
            counts[source.name] += 1
            finder.add(source, document)
    runs = finder.maximal()[:SHOWN_RUNS]
    return {
        "runs": [_shown(run, words, sources) for run in runs],
        "sources": [{"step": name, "documents": number} for name, number in counts.items()],
        "read_all": budget > 0,
        "seconds": round(time.monotonic() - began, 3),
    }


class _Finder:
    """Collects the runs that a text shares with documents."""

    def __init__(self, words: Sequence[str], least: int) -> None:
        self.words = words
        self.least = least
        self.places: dict[tuple[str, ...], list[int]] = {}
        for start in range(len(words) - least + 1):
            self.places.setdefault(tuple(words[start : start + least]), []).append(start)
        self.firsts = {gram[0] for gram in self.places}
        self.runs: dict[tuple[int, int], Run] = {}

    def add(self, source: StoredArtifact, document: dict[str, Any]) -> None:
        """Note the runs of a document, each once."""
        matches = list(WORD.finditer(document["text"]))
        words = [match.group() for match in matches]
        seen: set[tuple[int, int]] = set()
        for place in range(len(words) - self.least + 1):
            if words[place] not in self.firsts:
                continue
            for start in self.places.get(tuple(words[place : place + self.least]), ()):
                continues = place and start and words[place - 1] == self.words[start - 1]
                if continues:
                    continue  # it is a part of the run that began before
                length = self._length(words, place, start)
                key = (start, start + length)
                if key in seen:
                    continue
                seen.add(key)
                run = self.runs.setdefault(key, Run(*key))
                run.documents += 1
                if len(run.pages) < SHOWN_PAGES:
                    begin, end = matches[place].start(), matches[place + length - 1].end()
                    run.pages.append(_page(source, document, begin, end))

    def _length(self, words: Sequence[str], place: int, start: int) -> int:
        """How many words from two places on are the same."""
        length = self.least
        while (
            place + length < len(words)
            and start + length < len(self.words)
            and words[place + length] == self.words[start + length]
        ):
            length += 1
        return length

    def maximal(self) -> list[Run]:
        """The runs that are in no longer one, in the order of the text."""
        longest_first = sorted(self.runs.values(), key=lambda run: run.start - run.end)
        kept: list[Run] = []
        for run in longest_first:
            if not any(other.start <= run.start and run.end <= other.end for other in kept):
                kept.append(run)
        return sorted(kept, key=lambda run: run.start)


def documents_of(source: StoredArtifact) -> Iterator[dict[str, Any]]:
    """The documents or dialogues of an artifact: id, url, text."""
    folder = source.path / "data"
    if not folder.is_dir():
        return
    from llmstages.data import tables

    for number, row in enumerate(tables.load(folder)):
        if "messages" in row:
            text = "\n".join(str(turn["content"]) for turn in row["messages"])
            yield {"id": f"{source.name}:{number}", "url": "", "text": text}
        elif row.get("text"):
            yield {"id": str(row.get("id", number)), "url": row.get("url", ""), "text": row["text"]}


def _page(source: StoredArtifact, document: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    text = document["text"]
    return {
        "step": source.name,
        "id": document["id"],
        "url": document["url"],
        "before": text[max(0, begin - AROUND) : begin],
        "match": text[begin:end],
        "after": text[end : end + AROUND],
    }


def _shown(run: Run, words: Sequence[Any], sources: Sequence[StoredArtifact]) -> dict[str, Any]:
    """A run with its place in the text, and what became of its pages on the way."""
    by_name = {source.name: source for source in sources}
    for page in run.pages:
        source = by_name[page["step"]]
        if source.kind == "corpus" and page["url"]:
            page["history"] = list(document_trace.lines_of_page(source, page["url"]))
    return {
        "begin": words[run.start].start(),
        "end": words[run.end - 1].end(),
        "words": run.end - run.start,
        "documents": run.documents,
        "pages": run.pages,
    }
