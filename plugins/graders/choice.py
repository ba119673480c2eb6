"""grader choice: the reply names the letter of the right choice, or its text, and no other.

The choices are read from the question, where each has a line of its own ("A. Paris"). A letter
counts where it is named as an answer: "B", "(B) Paris", "The answer is B", "I choose B because
...", ``\\boxed{B}``; in "A dog is an animal" it is an article. Without any letter the text of a
choice counts, as the grader ``words`` or ``number`` reads it, if no other choice is given as well.

Left out on purpose: elimination ("it is neither A nor C, so ...") beyond plain denials.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.plugins.graders import latex, number, words
from llmstages.text import grading
from llmstages.text.grading import EMPHASIS

# What may stand behind a letter that is an answer; "A dog" and "I am" are none.
ENDS = r"(?=\s*(?:$|[).:,;!?\]}\"'\n—–-])|\s+(?:because|since|as|is|for|and|or)\b)"
# The whole reply begins with it: "B", "(B) Paris", "Option B".
AT_START = re.compile(
    rf"^\W*(?:(?:option|choice|answer)\s*:?\s*)?\(?([A-Z])\)?{ENDS}", re.IGNORECASE
)
NAMED = re.compile(
    r"(?:\bis|\bbe|:|\b(?:choose|pick|select|chose|option|choice|answer|letter|go with)|['’]s)"
    rf"\s*:?\s*(?:option\s+|choice\s+|letter\s+)?[\"'(\[]*([A-Z])[\"')\]]*{ENDS}"
)
# "B is correct", "(B) is the right one".
CONFIRMED = re.compile(
    r"(?<!\w)\(?([A-Z])\)?\s+(?:is|must be|would be)\s+(?:the\s+)?"
    r"(?:correct|right|best|true|answer)"
)
# "B is not correct", "B is wrong".
REFUTED = re.compile(
    rf"(?:{words.DENIED_BEHIND.pattern}|\s+(?:is|was|would be)\s+(?:wrong|incorrect|false))",
    re.IGNORECASE,
)
OTHERS = re.compile(r"^\W*(?:or|and|/|,)\s*\(?([A-Z])(?![\w'’])")


@dataclass(frozen=True)
class ChoiceConfig:
    """Nothing to set."""


class Choice:
    """The reply names the right choice, and no other."""

    Config = ChoiceConfig
    version = "1"

    def __init__(self, config: ChoiceConfig) -> None:
        self.config = config

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each reply names the choice whose letter is the answer of its problem."""
        return [
            _names(grading.own_part(reply), row) for reply, row in zip(replies, rows, strict=True)
        ]


def _names(reply: str, row: Mapping[str, Any]) -> bool:
    choices = grading.offered_choices(row)
    letter = str(row["answer"]).strip(" ().:")
    texts = {**choices, letter: choices.get(letter) or _first(row.get("aliases"))}
    named = named_letters(reply, texts)
    if named:
        return named == {letter}
    given = {
        other
        for other, text in texts.items()
        if text and _gives(reply, text, [value for value in texts.values() if value != text])
    }
    return given == {letter}


def _first(aliases: Sequence[Any] | None) -> str:
    return str(aliases[0]) if aliases else ""


def named_letters(reply: str, letters: Mapping[str, Any]) -> set[str]:
    """The letters that the last statement with any names as its answer."""
    boxes = list(latex.BOXED.finditer(reply))
    if boxes:
        reply = latex.plain(latex.final_part(reply))
    reply = EMPHASIS.sub("", reply).strip()
    declared = list(grading.DECLARED.finditer(reply))
    if declared:
        found = _letters_at_start(reply[declared[-1].end() :])
        if found:
            return found & set(letters)
    named: set[str] = set()
    for statement in words.statements(reply):
        found = _letters_of(statement) & set(letters)
        named = found or named
    return named


def _letters_at_start(text: str) -> set[str]:
    match = AT_START.match(text)
    if not match or not (match[1].isupper() or match.end() >= len(text.strip())):
        return set()
    rest = text[match.end() :]
    return set() if REFUTED.match(rest) else {match[1].upper(), *_further(rest)}


def _letters_of(statement: str) -> set[str]:
    found = _letters_at_start(statement)
    for pattern in (NAMED, CONFIRMED):
        for match in pattern.finditer(statement):
            if re.search(words.DENIED, statement[: match.start(1)], re.IGNORECASE):
                continue
            found |= {match[1], *_further(statement[match.end() :])}
    return found


def _further(rest: str) -> set[str]:
    """The letters that follow in a list: "B or C"."""
    found = set()
    match = OTHERS.match(rest)
    while match:
        found.add(match[1])
        rest = rest[match.end() :].lstrip(")")
        match = OTHERS.match(rest)
    return found


def _gives(reply: str, text: str, others: Sequence[str]) -> bool:
    """Whether a reply states the text of a choice, and not a longer one that holds it."""
    if number.parse(text) is not None:
        return number.gives(reply, [text])
    if not words.states(reply, text):
        return False
    longer = [other for other in others if grading.contains_value(other.lower(), text.lower())]
    return not any(words.states(reply, other) for other in longer)
