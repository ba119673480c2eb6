"""The answers of a problem that count as right: one, or a list of them with its aliases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmstages.data.formats.errors import SHOWN, InvalidRow
from llmstages.data.formats.values import scalar_text

# Fields of an object that holds answers: TriviaQA, Natural Questions, SQuAD.
MAIN = ("value", "text", "answer", "normalized_value")
ALIASES = ("aliases", "alias", "alternatives")


def accepted_answers(value: Any) -> list[str]:
    """The answers in a cell, the main one first, without repeats.

    Raises InvalidRow for what is no text, number, list or object of answers: its Python text would
    be an answer that nobody gives.
    """
    answers = dict.fromkeys(text.strip() for text in _texts(value))
    answers.pop("", None)
    return list(answers)


def _texts(value: Any) -> list[str]:
    text = scalar_text(value)
    if text is not None:
        return [text]
    if value is None:
        return []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, Mapping):
        main = next((name for name in MAIN if value.get(name)), "")
        if main:
            aliases = [text for name in ALIASES for text in _texts(value.get(name))]
            return [*_texts(value[main]), *aliases]
    raise InvalidRow("answer", f"the answer is not a text or a list of texts: {str(value)[:SHOWN]}")
