"""Lines that occur on many pages (menus, licences, slogans) are removed from all of them.

Not in the default list: it also removes what a model would learn to recite, which is the point of the recitation
experiment (train with and without it). Source of the idea: C4 (Raffel et al. 2020, section 2.2) and CCNet.
"""

from __future__ import annotations

import dataclasses as dc
from collections import Counter
from collections.abc import Sequence

from llmstages.plugins.corpus.filter import Document, Drop, Edit, Verdict
from llmstages.stage import option


class LineDedup:
    """Removes every line that occurs in more than ``max_documents`` documents."""

    @dc.dataclass(frozen=True)
    class Config:
        max_documents: int = option(3, "most documents a line may occur in; lines in more of them are removed everywhere")
        min_words: int = option(1, "leave shorter lines alone; unit: words between blanks")

    kind = "group"
    version = "1"

    def __init__(self, config: Config) -> None:
        self.config = config

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        counts = Counter(line for document in documents for line in set(document.lines))
        frequent = {line for line, count in counts.items()
                    if count > self.config.max_documents and len(line.split()) >= self.config.min_words}
        return [self._edit(document, frequent) for document in documents]

    def _edit(self, document: Document, frequent: set[str]) -> Verdict:
        removed = sum(line in frequent for line in document.lines)
        if not removed:
            return None
        text = "\n".join(line for line in document.text.split("\n") if line.strip() not in frequent).strip()
        if not text:
            return Drop("empty", removed, "a line that few pages have")
        return Edit(text, removed)
