"""grader number: the number that the reply ends with equals the answer.

Numbers are compared as numbers (text/numbers.py), so ``18.00``, ``$18`` and ``18`` are the same. A
declared number counts ("the answer is 18", "#### 18"). As usual for GSM8K (Cobbe et al. 2021), the
last number of a reply that declares none is its result; what stands in parentheses is not, where
there is another.

Units are compared where both have one: ``5 miles`` is wrong where ``5 km`` is wanted. Left out on
purpose: units that only the question names, conversion of units, and numbers in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from llmstages.plugins.graders import latex, words
from llmstages.text import grading, numbers
from llmstages.text.grading import DECLARED, EMPHASIS

# A number may also follow the mere word: "answer 104".
DECLARED_NUMBER = re.compile(rf"(?:{DECLARED.pattern}|\banswer\s*)", re.IGNORECASE)
OPERATOR = re.compile(r"\s*[-+*/×÷x]\s*[\d($]")
RESULT = re.compile(r"=\s*([^=\n]*)")
PARENTHESES = re.compile(r"\([^()]*\)")
# In front of a number that is not the result: a part of a formula or a time, a bound, a denial.
PART_OF_FORMULA = re.compile(r"(?:(?:\\[a-zA-Z]+\s*\{?|[a-zA-Z]\(|√|\^\s*[{(]?)\s*|\d:)$")
BOUND = re.compile(
    r"\b(?:(?:more|less|fewer|greater|larger|smaller|higher|lower)\s+than|at\s+least|at\s+most"
    r"|up\s+to)\s+[$€£]?$",
    re.IGNORECASE,
)
DENIED = re.compile(words.DENIED.removesuffix(r"\s+$") + r"\s+[$€£]?$", re.IGNORECASE)


@dataclass(frozen=True)
class NumberConfig:
    """Nothing to set."""


class Number:
    """The number that the reply ends with equals the answer."""

    Config = NumberConfig
    version = "1"

    def __init__(self, config: NumberConfig) -> None:
        self.config = config

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether the number of each reply is one of the answers of its problem."""
        return [
            gives(grading.own_part(reply), grading.accepted(row))
            for reply, row in zip(replies, rows, strict=True)
        ]


def gives(reply: str, answers: Sequence[str]) -> bool:
    """Whether a reply ends with one of the answers, which are numbers."""
    given = stated_quantity(reply)
    if given is None:
        return False
    wanted = [parse(answer) for answer in answers]
    return any(answer is not None and given.equals(answer) for answer in wanted)


def parse(answer: str) -> numbers.Quantity | None:
    """A wanted answer as a quantity; None if it is not a number."""
    bare = EMPHASIS.sub("", answer.strip())
    return numbers.quantity_of(bare.removesuffix(".") if bare.count(".") == 1 else bare)


def stated_number(reply: str) -> Fraction | None:
    """The number that a reply ends with (``stated_quantity``)."""
    quantity = stated_quantity(reply)
    return quantity.value if quantity else None


def stated_quantity(text: str) -> numbers.Quantity | None:
    """The number that a reply ends with, with its unit; None where there is none.

    It is the last one that is declared ("answer", "####") or, without these, the last one of the
    text. There is none either where the last number is one of two: "72 or 73".
    """
    text = latex.plain(text) if "\\" in text else text
    text = numbers.normalized(EMPHASIS.sub("", text))
    declared = [
        match
        for announced in DECLARED_NUMBER.finditer(text)
        if (match := numbers.AMOUNT.match(text, announced.end()))
    ]
    if declared:
        match = declared[-1]
        rest = text[match.end() :]
        return _result_of_sum(rest) if OPERATOR.match(rest) else _first(text, match.start())
    # A number in parentheses explains another one, where there is one.
    outside = PARENTHESES.sub(" ", text)
    if numbers.NUMBER.search(outside):
        text = outside
    matches = [match for match in numbers.NUMBER.finditer(text) if not _is_denied(text, match)]
    if not matches or _is_no_result(text, matches[-1]):
        return None
    if len(matches) > 1 and _are_alternatives(text[matches[-2].end() : matches[-1].start()]):
        return None
    return numbers.quantity_at(text, matches[-1])


def _is_denied(text: str, match: re.Match[str]) -> bool:
    return DENIED.search(text[: match.start()]) is not None


def _is_no_result(text: str, match: re.Match[str]) -> bool:
    """Whether a number is only a part of a formula (the 16 of a root), or a bound."""
    before = text[: match.start()]
    return bool(PART_OF_FORMULA.search(before) or BOUND.search(before))


def _are_alternatives(between: str) -> bool:
    """Whether what stands between two numbers offers both: "72 or 73"."""
    words_between = between.strip()
    return re.fullmatch(r"%?\s*,?\s*or\s*[$€£]?", words_between) is not None


def _result_of_sum(rest: str) -> numbers.Quantity | None:
    """The number behind the last ``=`` of the line with which a declared sum continues.

    None if the sum is not worked out.
    """
    line = rest.partition("\n")[0]
    results = RESULT.findall(line)
    return _first(results[-1], 0) if results else None


def _first(text: str, start: int) -> numbers.Quantity | None:
    """The first number from a place on."""
    found = numbers.NUMBER.search(text, start)
    return numbers.quantity_at(text, found) if found else None
