"""Is a reply right? One rule a kind of answer, shared by evaluation, probing and the verifying reward."""

from __future__ import annotations

import re

ANSWER = re.compile(r"(?:answer|####)\s*:?\s*\$?(-?[\d,]*\.?\d+)", re.IGNORECASE)
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def states(text: str, value: str) -> bool:
    """Whether the value occurs in the text as whole words."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def number_of(text: str) -> str:
    """The number a solution ends with: after "answer" or "####", else its last number; "" where there is none."""
    marked = ANSWER.findall(text)
    found = marked or NUMBER.findall(text)
    return found[-1].replace(",", "").rstrip(".") if found else ""


def right(text: str, answer: str) -> bool:
    """A numeric answer must be the number the text ends with, any other answer must be stated."""
    wanted = answer.replace(",", "")
    return number_of(text) == wanted if NUMBER.fullmatch(wanted) else states(text, answer)
