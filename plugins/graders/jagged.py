"""grader jagged: replies to the questions of problems.jagged, dialogues.jagged and evaluate.jagged.

``kind`` in the meta column says what the answer is:

spelling  letters one by one, whatever stands between them ("s-t-r-a-w", "S, T, R, A and W"). A
          reply that spells in several places counts for its last one
number    the number that the reply states (grader ``number``). The dates and factors of the
          question are not taken for it ("There are 12 days from 2024-03-03 to 2024-03-15", "2618
          is 34 times 77"), and without digits a number may be a word ("three")
choice    one of the ``options``, as settled by a comparison ("9.9 is larger than 9.11", "9.11 <
          9.9", "the largest is 9.9") or by being the only one that is named
words     all others, as the grader ``words`` reads them; so do rows without a kind, but numbers

A declared answer ("The answer is ...") decides. Left out on purpose: letters that are spelled in
groups ("st-raw"), and elimination ("it is not 9.11").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.plugins.graders import number, words
from llmstages.text import grading
from llmstages.text.grading import DECLARED, EMPHASIS
from llmstages.train.trainer import read_meta

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
MONTHS = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    "|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?"
)
DAY = r"\d{1,2}(?:st|nd|rd|th)?"
DATE = re.compile(
    rf"\b(?:\d{{4}}[-/.]\d\d?[-/.]\d\d?|(?:{MONTHS})\.?\s+{DAY}(?:,?\s+\d{{4}})?"
    rf"|{DAY}\s+(?:of\s+)?(?:{MONTHS})\b\.?(?:,?\s+\d{{4}})?)",
    re.IGNORECASE,
)
# The beginning of a date where a reply was cut off
CUT_DATE = re.compile(r"\b(?:and|to|from|after|between)\s+[\d-]{1,9}$")
NUMBER_WORDS: Sequence[str] = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
TIMES = {"once": "1 time", "twice": "2 times"}
NUMBER_WORD = re.compile(rf"\b(?:{'|'.join([*NUMBER_WORDS, *TIMES])})\b", re.IGNORECASE)
MULTIPLIED = r"(?:\*|×|x|·|times|and|by|multiplied\s+by|with)"
DENIED = re.compile(r"(?:\bnot|n['’]t|\bnever|\bneither|\bnor)\b[^.,;]{0,15}$", re.IGNORECASE)


@dataclass(frozen=True)
class JaggedConfig:
    """Nothing to set."""


class Jagged:
    """The reply gives the answer of a jagged question, in any natural wording."""

    Config = JaggedConfig
    version = "1"

    def __init__(self, config: JaggedConfig) -> None:
        self.config = config

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each reply gives the answer of its problem."""
        return [_gives(reply, row) for reply, row in zip(replies, rows, strict=True)]


def _gives(reply: str, row: Mapping[str, Any]) -> bool:
    meta = read_meta(row)
    by_detection = "number" if grading.detect(str(row["answer"])) == "number" else "words"
    kind = meta.get("kind", by_detection)
    own = grading.own_part(reply)
    if not own.strip():
        return False
    return KINDS[kind](own, row, meta)


def _says_words(reply: str, row: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    return any(words.states(reply, answer) for answer in grading.accepted(row))


def _spells(reply: str, row: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """Whether the last letters that stand alone are those of the answer."""
    reply = EMPHASIS.sub(" ", reply)
    declared = list(DECLARED.finditer(reply))
    runs = spelled(reply[declared[-1].end() :]) if declared else []
    runs = runs or spelled(reply)
    wanted = "".join(WORD.findall(str(row["answer"]))).casefold()
    return bool(runs) and runs[-1] == wanted


def spelled(text: str) -> list[str]:
    """The stretches of two or more letters that stand alone, in lower case, in order."""
    runs: list[str] = []
    run = ""
    tokens = WORD.findall(text)
    for place, token in enumerate(tokens):
        follows = tokens[place + 1] if place + 1 < len(tokens) else ""
        if len(token) == 1:
            run += token.casefold()
        elif not (token.casefold() == "and" and run and len(follows) == 1):
            runs.append(run)
            run = ""
    return [letters for letters in [*runs, run] if len(letters) > 1]


def _counts(reply: str, row: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """Whether the number that the reply states is the answer."""
    text = DATE.sub("a date", reply)
    if text != reply:
        text = CUT_DATE.sub("", text)
    operands = [re.escape(operand) for operand in meta.get("operands", ())]
    if operands:
        first, second = operands
        for a, b in ((first, second), (second, first)):
            asked = rf"(?<![\d.]){a}\s*{MULTIPLIED}\s*{b}(?![\d]|\.\d)(?!\s*[-+*/×x])"
            text = re.sub(asked, "the product", text, flags=re.IGNORECASE)
    # A long text may have its "one" anywhere.
    if not re.search(r"\d", text) and len(text.split()) <= words.SHORT_REPLY:
        text = NUMBER_WORD.sub(_in_digits, text)
    return number.gives(text, grading.accepted(row))


def _in_digits(match: re.Match[str]) -> str:
    word = match[0].casefold()
    return TIMES.get(word) or str(NUMBER_WORDS.index(word))


def _chooses(reply: str, row: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """Whether the reply settles on the answer, and on no other option."""
    options = meta.get("options") or [row["answer"]]
    declared = DECLARED.search(reply) is not None
    # An explicit comparison settles the question wherever it stands.
    places = words.statements(reply) if declared else words.sentences(EMPHASIS.sub("", reply))
    any_option = "|".join(map(_pattern, sorted(options, key=len, reverse=True)))
    compared = [_compared(sentence, any_option, meta) for sentence in places]
    found = [option for settled in compared for option in settled or ()]
    if found:
        return {_as_offered(option, options) for option in found} == {str(row["answer"])}
    # A long text about numbers names them without deciding.
    if "more" in meta and not declared and len(reply.split()) > words.SHORT_REPLY:
        return False
    settled: set[str] = set()
    for statement in words.statements(reply):
        if _compared(statement, any_option, meta) is None:
            settled |= named(statement, any_option, options, meta.get("given", ""))
    return settled == {str(row["answer"])}


def named(statement: str, any_option: str, options: Sequence[str], given: str) -> set[str]:
    """The option that a statement names as the only one; nothing if it names several or none.

    Args:
        any_option: a pattern of the options.
        options: what the question offers.
        given: an option that the question itself names, which counts only if it stands alone.
    """
    found = set()
    for match in re.finditer(any_option, statement, re.IGNORECASE):
        if not DENIED.search(statement[: match.start()]):
            found.add(_as_offered(match[0], options))
    if len(found) > 1:
        found -= {given}
    return found if len(found) == 1 else set()


def _compared(statement: str, option: str, meta: Mapping[str, Any]) -> list[str] | None:
    """What a comparison in the statement settles on; None if there is none.

    It is between options by ``more`` and ``less`` of ``meta``, patterns of the words for what was
    asked for and for its opposite.
    """
    more, less = meta.get("more"), meta.get("less")
    if not more or not less:
        return None
    is_the = (
        r"[\s,:]*(?:is|was|are|must be|would be)\s+"
        r"(?:(?:the|a|indeed|actually|slightly|much|[\d.]+ times)\s+)*"
    )
    thing = r"(?:\s+(?:number|one|decimal|value|person|of\s+\w+|of\s+the\s+\w+))*"
    higher = (
        rf"(?P<a>{option}){is_the}(?:{more})\b",
        rf"\b(?:{more})\b{thing}\s*(?:is|was|:|=)\s*(?P<a>{option})",
        rf"(?P<a>{option})\s*>\s*(?:{option})",
        rf"(?:{option})\s*<\s*(?P<a>{option})",
        rf"(?:{option}){is_the}(?:{less})\s+than\s+(?P<a>{option})",
    )
    found = []
    for pattern in higher:
        for match in re.finditer(pattern, statement, re.IGNORECASE):
            found.append(match["a"])
    # "9.11 is smaller" and "9.11 is not larger" name what it is not.
    is_not = r"\s+(?:is|was)(?:\s+not|n['’]t)\s+(?:the\s+)?"
    other = rf"(?:{option})(?:{is_the}(?:{less})|{is_not}(?:{more}|{less}))\b"
    is_other = re.search(other, statement, re.IGNORECASE)
    return found if found or is_other else None


def _pattern(option: str) -> str:
    """An option as a whole word or number: 9.1 is not in 9.11."""
    return rf"(?<![\w.]){re.escape(option)}(?![\w]|\.\d)"


def _as_offered(written: str, options: Sequence[str]) -> str:
    return next(option for option in options if option.casefold() == written.casefold())


KINDS: Mapping[str, Callable[[str, Mapping[str, Any], Mapping[str, Any]], bool]] = {
    "spelling": _spells,
    "number": _counts,
    "choice": _chooses,
    "words": _says_words,
}
