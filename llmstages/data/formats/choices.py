"""Multiple choice: the choices are a part of the question, and the answer is a letter.

MMLU (choices, answer as index or letter), ARC (choices with labels, answerKey), HellaSwag's endings
and columns A, B, C, D, as in C-Eval. The text of the right choice is accepted as well.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmstages.data.formats.errors import SHOWN, InvalidRow
from llmstages.data.formats.values import scalar_text

CHOICES = ("choices", "options", "endings")
KEYS = ("answer", "answerKey", "answer_key", "answer_idx", "label", "target", "correct", "gold")
LETTERS = string.ascii_uppercase
FEWEST = 2


class Choice(NamedTuple):
    """A question of multiple choice.

    Attributes:
        lines: the choices with their letters, as they stand below the question.
        letter: of the right one.
        text: of the right one.
        used: fields of the row that were read.
    """

    lines: str
    letter: str
    text: str
    used: frozenset[str]


def choice_of(row: Mapping[str, Any]) -> Choice | None:
    """The choices of a row and which one is right; None if it has none.

    Raises InvalidRow if nothing says which one is right, or something says it unclearly.
    """
    texts, labels, fields = _choices(row)
    if len(texts) < FEWEST:
        return None
    key = next((name for name in KEYS if row.get(name) is not None), "")
    if not key:
        raise InvalidRow("no_answer", f"has choices, but none of {', '.join(KEYS)} says which")
    at = _position(row[key], texts, labels)
    lines = "\n".join(f"{LETTERS[i]}. {text}" for i, text in enumerate(texts))
    return Choice(lines, LETTERS[at], texts[at], frozenset((*fields, key)))


def _choices(row: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """(texts, their labels in the data, fields read)."""
    name = next((name for name in CHOICES if row.get(name)), "")
    if not name:
        columns = [letter for letter in LETTERS if scalar_text(row.get(letter)) is not None]
        if columns == list(LETTERS[: len(columns)]):
            return [str(scalar_text(row[letter])) for letter in columns], columns, columns
        return [], [], []
    value = row[name]
    labels: list[str] = []
    if isinstance(value, Mapping):
        # ARC has two lists, others have letter -> text.
        listed = value.get("text")
        if isinstance(listed, list):
            labels = [str(label) for label in value.get("label") or []]
        else:
            labels, listed = [str(label) for label in value], list(value.values())
    else:
        listed = value
    if not isinstance(listed, list) or len(listed) > len(LETTERS):
        raise InvalidRow("choices", f"{name} is not a list of choices: {str(value)[:SHOWN]}")
    texts = [scalar_text(item) for item in listed]
    if any(text is None for text in texts):
        raise InvalidRow("choices", f"{name} holds what is not text: {str(value)[:SHOWN]}")
    return [str(text).strip() for text in texts], labels, [name]


def _position(answer: Any, texts: list[str], labels: list[str]) -> int:
    """Which choice an answer names: by its label, its letter, its text, or its number from 0.

    Labels of the data come first: they may be shuffled, or numbers.
    """
    if isinstance(answer, bool) or scalar_text(answer) is None:
        raise InvalidRow("no_answer", f"the answer {str(answer)[:SHOWN]} names no choice")
    if isinstance(answer, int) and not labels:
        if 0 <= answer < len(texts):
            return answer
        raise InvalidRow("no_answer", f"the answer {answer} is none of {len(texts)} choices")
    text = str(scalar_text(answer)).strip()
    bare = text.strip("().: ")
    by_label = [at for at, label in enumerate(labels) if label == bare]
    if len(by_label) == 1:
        return by_label[0]
    ways = (
        [LETTERS.index(bare)] if bare in LETTERS[: len(texts)] and len(bare) == 1 else [],
        [at for at, choice in enumerate(texts) if choice.casefold() == text.casefold()],
    )
    named = {at for way in ways for at in way}
    if len(named) != 1:
        what = "is none" if not named else "may be several"
        raise InvalidRow("no_answer", f"the answer {text[:SHOWN]!r} {what} of the choices {texts}")
    return named.pop()
