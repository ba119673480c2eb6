"""Is a reply correct? One rule per kind of answer, shared by evaluation, probing and rewards."""

from __future__ import annotations

import re

ANSWER = re.compile(r"(?:answer|####)\s*:?\s*\$?(-?[\d,]*\.?\d+)", re.IGNORECASE)
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def contains_value(text: str, value: str) -> bool:
    """Whether the value occurs in the text as whole words."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def number_of(text: str) -> str:
    """The number that a solution ends with, "" where there is none.

    It is the last one after "answer" or "####" or, without these, the last one of the text.
    """
    numbers = ANSWER.findall(text) or NUMBER.findall(text)
    if not numbers:
        return ""
    return numbers[-1].replace(",", "").rstrip(".")


def is_correct(text: str, answer: str) -> bool:
    """Whether a reply gives the answer.

    A numeric answer must be the number that the text ends with; the text must contain any other
    answer.
    """
    number = answer.replace(",", "")
    if NUMBER.fullmatch(number):
        return number_of(text) == number
    return contains_value(text, answer)
