"""The rules of C4: drops lines that are not sentences, then documents with too little left.

Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.2, as FineWeb uses them (without the rule
of terminal punctuation) and as datatrove 0.10 decides. The text of a document that stays is made
of the lines kept.
"""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Iterator, Sequence

from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Drop, Edit, Verdict

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
TERMINAL = (".", "?", "!", '"', "'")
POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


class C4Quality:
    """Removes lines; drops lorem ipsum, curly brackets and documents of few sentences."""

    @dc.dataclass(frozen=True)
    class Config:
        min_sentences: int = option(5, "fewest sentences left in a document; 0: any number", ge=0)
        min_words_per_line: int = option(
            3, "lines of fewer words are removed; unit: words between blanks; 0: none", ge=0
        )
        max_word_length: int = option(
            1000, "lines with a longer word are removed; characters; 0: none", ge=0
        )
        terminal_punctuation: bool = option(
            False, "remove lines that end in none of . ? ! \" ' (C4 does, FineWeb does not)"
        )
        citations: bool = option(True, "remove citation marks such as [12]")
        lorem_ipsum: bool = option(True, "drop documents with this phrase")
        curly_bracket: bool = option(True, "drop documents with an opening curly bracket (code)")
        javascript: bool = option(True, "remove lines with this word")
        policy: bool = option(True, "remove lines that speak of terms of use, privacy or cookies")

    kind = "edit"
    version = "2"
    family = "quality"

    def __init__(self, config: Config) -> None:
        self.config = config

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [self._judge(document, self.config.min_sentences)[0] for document in documents]

    def measure(self, documents: Sequence[Document]) -> list[list[Check]]:
        """The number of sentences left."""
        least = self.config.min_sentences
        measured = []
        for document in documents:
            _, sentences = self._judge(document, 0)
            check = Check("too_few_sentences", sentences, least=least, unit="sentences")
            measured.append([check])
        return measured

    def _judge(self, document: Document, enough: int) -> tuple[Verdict, int]:
        """The verdict and the number of sentences; counting stops at ``enough`` (0: never)."""
        kept: list[str] = []
        sentences = 0
        for line in self._lines(document.text):
            if isinstance(line, Drop):
                return line, sentences
            if not enough or sentences < enough:
                sentences += document.splitter.sentences(line)
            kept.append(line)
        if sentences < self.config.min_sentences:
            return (
                Drop("too_few_sentences", sentences, f">= {self.config.min_sentences} sentences"),
                sentences,
            )
        text = "\n".join(kept).strip()
        if text == document.text:
            return None, sentences
        removed = len(document.text.splitlines()) - len(kept)
        return Edit(text, max(1, removed)), sentences

    def _lines(self, text: str) -> Iterator[str | Drop]:
        """The lines to keep, or a Drop where the document must go.

        A search in the whole text spares searches in each line.
        """
        c = self.config
        lowered = text.lower()
        lorem = c.lorem_ipsum and "lorem ipsum" in lowered
        script = c.javascript and "javascript" in lowered
        bracket = c.curly_bracket and "{" in text
        citations = c.citations and "[" in text
        policies = [phrase for phrase in POLICY if phrase in lowered] if c.policy else []
        for line in text.splitlines():
            line = line.strip()
            if c.max_word_length and _longest_word_above(c.max_word_length, line):
                continue
            # Citation marks count as words, as in datatrove.
            words = len(line.split(None, c.min_words_per_line)) if c.min_words_per_line else 0
            if citations:
                line = CITATION.sub("", line)
            if c.terminal_punctuation and (not line.endswith(TERMINAL) or line.endswith("...")):
                continue
            if words < c.min_words_per_line:
                continue
            if lorem or script or bracket or policies:
                lowered_line = line.lower()
                if lorem and "lorem ipsum" in lowered_line:
                    yield Drop("lorem_ipsum", "lorem ipsum", "no filler text")
                if script and "javascript" in lowered_line:
                    continue
                if bracket and "{" in line:
                    yield Drop("curly_bracket", "{", "no curly bracket")
                if any(phrase in lowered_line for phrase in policies):
                    continue
            yield line


def _longest_word_above(length: int, line: str) -> bool:
    return len(line) > length and max(map(len, line.split())) > length
