"""Names of people become placeholders, found by a spaCy pipeline of your own; none is shipped.

Slow beside the patterns of pii (a pipeline reads some 10,000 words a second), and never complete:
it is a statistical guess. Any pipeline with entities works, also a rule-based one (entity_ruler)
with a list of names.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator, Sequence
from typing import Any

from llmstages.core.errors import StageError, first_line
from llmstages.core.stage import option
from llmstages.data.filtering import Document, Edit, Verdict


class PIINames:
    """Replaces what a spaCy pipeline takes for names."""

    @dc.dataclass(frozen=True)
    class Config:
        model: str = option("", "an installed spaCy pipeline (en_core_web_sm) or the folder of one")
        labels: tuple[str, ...] = option(
            ("PERSON", "PER"), "entity labels to replace, as the pipeline calls them"
        )
        placeholder: str = option("[name]", "what stands in the place of an entity")
        characters: int = option(
            100_000,
            "give the pipeline pieces of at most this many characters (it needs memory for them),"
            " cut at newlines",
            ge=1,
        )

    kind = "edit"
    version = "1"

    def __init__(self, config: Config) -> None:
        if not config.model:
            raise StageError(
                "pii_names needs pii_names.model: the name of an installed spaCy pipeline (python"
                " -m spacy download en_core_web_sm) or a folder"
            )
        if not config.labels:
            raise StageError(
                "pii_names.labels is empty: name the labels to replace, for example [PERSON]"
            )
        self.config = config
        self._pipeline: Any = None

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        if self._pipeline is None:
            self._pipeline = self._load()
        return [self._judge(document.text) for document in documents]

    def _load(self) -> Any:
        try:
            import spacy
        except ImportError as error:
            raise StageError(
                f"pii_names needs spaCy ({error}). Run: pip install 'llmstages[spacy]'"
            ) from error
        try:
            pipeline = spacy.load(self.config.model)
        except (OSError, ValueError) as error:
            raise StageError(
                f"pii_names.model={self.config.model}: spaCy has no such pipeline"
                f" ({first_line(error)}); install it with python -m spacy download NAME,"
                " or give the folder of one"
            ) from error
        pipeline.max_length = max(pipeline.max_length, self.config.characters)
        return pipeline

    def _judge(self, text: str) -> Verdict:
        spans = self._spans(text)
        if not spans:
            return None
        parts = []
        end = 0
        for start, stop in spans:
            parts += [text[end:start], self.config.placeholder]
            end = stop
        parts.append(text[end:])
        return Edit("".join(parts), len(spans))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of the entities to replace."""
        spans = []
        for offset, piece in _pieces(text, self.config.characters):
            with self._pipeline.memory_zone():
                for entity in self._pipeline(piece).ents:
                    if entity.label_ in self.config.labels:
                        spans.append((offset + entity.start_char, offset + entity.end_char))
        return spans


def _pieces(text: str, most: int) -> Iterator[tuple[int, str]]:
    """(offset, piece) of the text, cut after the last newline or blank that fits."""
    start = 0
    while start < len(text):
        end = start + most
        if end < len(text):
            cut = text.rfind("\n", start, end)
            if cut < 0:
                cut = text.rfind(" ", start, end)
            # A piece of one character would be a blank alone: rather cut inside a word.
            if cut > start:
                end = cut + 1
        yield start, text[start:end]
        start = end
