"""Questions with an answer that a program can check."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

from llmstages.core import registry
from llmstages.data.formats.accepted import accepted_answers
from llmstages.data.formats.choices import choice_of
from llmstages.data.formats.dialogues import ASKED
from llmstages.data.formats.errors import SHOWN
from llmstages.data.formats.turn_fields import refuse_media
from llmstages.data.formats.turns import (
    InvalidRow,
    Row,
    as_messages,
    field_names,
    first_filled,
    first_given,
)

ANSWERS = (
    "answer",
    "answers",
    "target",
    "final_answer",
    "expected_answer",
    "correct_answer",
    "gold",
    "label",
    "solution",
)
# Tests of a program, and programs that pass them (MBPP, HumanEval)
CODE_TESTS = ("test_list", "tests", "entry_point")
CODE_ANSWERS = ("code", "canonical_solution")
GROUPS = ("group", "level", "subject", "category", "type")
# The results of the MATH data set (Hendrycks et al. 2021); braces nest once, as in \frac{1}{2}.
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")


def problem(row: Row, task: str = "", grader: str = "") -> dict[str, Any]:
    """A problem from a row of GSM8K (Cobbe et al. 2021), or of any questions with answers.

    Raises InvalidRow if the row cannot be used.

    Returns:
        prompt: the question as messages.
        answer: what a checker compares; ``1234`` for a worked answer that ends in ``#### 1,234``;
            the letter of the right choice, where there are choices (choices.py).
        aliases: other answers that are right.
        task: the task given, else that of the row, else "gsm8k" or "questions".
        group: what the row calls its level, subject or the like; "" if nothing.
        meta: the fields that are not used, as JSON text.
        solution: the worked answer, or "".
        grader: the grader given, else the one that the row names, else "" (text/grading.py).
    """
    refuse_media(row, "the row")
    has_tests = any(row.get(name) for name in CODE_TESTS)
    asked = first_filled(row, (*ASKED, "text") if has_tests else ASKED)
    choice = choice_of(row) if asked else None
    answered = first_given(row, (*CODE_ANSWERS, *ANSWERS) if has_tests else ANSWERS)
    if not asked or not (answered or choice):
        raise InvalidRow(
            "format",
            f"needs a question ({', '.join(ASKED)}) and an answer; the row has {field_names(row)}",
        )
    prompt = as_messages(row[asked], "user", Counter())
    if choice:
        prompt[-1] = {**prompt[-1], "content": f"{prompt[-1]['content']}\n{choice.lines}"}
        found = Answer(choice.letter, (choice.text,), str(row.get("solution") or ""), "choices")
    else:
        found = _program(row, answered) if has_tests else _answer(row, answered)
    group = ""
    for name in GROUPS:
        if isinstance(row.get(name), (str, int)):
            group = name
            break
    used = {
        asked,
        "solution",
        "task",
        "grader",
        group,
        *(choice.used if choice else (answered, "answers")),
    }
    meta = {str(key): value for key, value in row.items() if key not in used}
    return {
        "prompt": prompt,
        "answer": found.text,
        "aliases": list(found.aliases),
        "task": task or str(row.get("task") or found.default_task),
        "group": str(row[group]) if group else "",
        "meta": json.dumps(meta, ensure_ascii=False, sort_keys=True, default=str),
        "solution": found.solution,
        "grader": grader or _grader(row) or ("code_tests" if has_tests else ""),
    }


def _grader(row: Row) -> str:
    """The grader that a row names. Raises InvalidRow if there is none of that name."""
    named = row.get("grader")
    if named is None or named == "":
        return ""
    known = registry.entries("graders")
    if not isinstance(named, str) or named not in known:
        raise InvalidRow(
            "grader",
            f"the row's grader is {str(named)[:SHOWN]}; there are {', '.join(known)}, and "
            "problems.graders.NAME=NAME chooses one for all rows",
        )
    return named


class Answer(NamedTuple):
    """What a problem wants: ``text`` or one of the ``aliases``, and how it is worked out."""

    text: str
    aliases: tuple[str, ...] = ()
    solution: str = ""
    default_task: str = "questions"


def _program(row: Row, answered: str) -> Answer:
    """A program that passes the tests of the row, which decide; it is never compared."""
    program = str(row[answered]).strip()
    return Answer(program, default_task="programs", solution=program)


def _answer(row: Row, answered: str) -> Answer:
    """The answer of a row that has no choices."""
    accepted = accepted_answers(row[answered])
    if answered != "answers" and row.get("answers"):
        accepted = list(dict.fromkeys((*accepted, *accepted_answers(row["answers"]))))
    if not accepted:
        raise InvalidRow("no_answer", "the answer is empty")
    answer, *aliases = accepted
    solution = str(row.get("solution") or "")
    if "####" in answer:
        worked, _, result = answer.rpartition("####")
        answer = THOUSANDS.sub("", result.strip())
        if not answer:
            raise InvalidRow("no_answer", "the answer is empty")
        return Answer(answer, tuple(aliases), worked.strip(), "gsm8k")
    if answered == "solution":
        boxed = BOXED.findall(answer)
        if not boxed:
            raise InvalidRow("no_answer", "the solution marks no result (#### or \\boxed{})")
        answer = boxed[-1]
    return Answer(answer, tuple(aliases), solution)
