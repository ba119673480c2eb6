"""Questions with an answer that a program can check."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from llmstages.data.formats.dialogues import ASKED
from llmstages.data.formats.turns import (
    InvalidRow,
    Row,
    as_messages,
    field_names,
    first_filled,
    first_given,
)

ANSWERS = ("answer", "target", "final_answer", "expected_answer", "label", "solution")
GROUPS = ("group", "level", "subject", "category", "type")
# The results of the MATH data set (Hendrycks et al. 2021); braces nest once, as in \frac{1}{2}.
BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")


def problem(row: Row, task: str = "") -> dict[str, Any]:
    """A problem from a row of GSM8K (Cobbe et al. 2021), or of any questions with answers.

    Raises InvalidRow if the row cannot be used.

    Returns:
        prompt: the question as messages.
        answer: what a checker compares; ``1234`` for a worked answer that ends in ``#### 1,234``.
        task: the task given, else that of the row, else "gsm8k" or "questions".
        group: what the row calls its level, subject or the like; "" if nothing.
        meta: the fields that are not used, as JSON text.
        solution: the worked answer, or "".
    """
    asked = first_filled(row, ASKED)
    answered = first_given(row, ANSWERS)
    if not asked or not answered:
        raise InvalidRow(
            "format",
            f"needs a question ({', '.join(ASKED)}) and an answer; the row has {field_names(row)}",
        )
    answer = str(row[answered]).strip()
    solution = str(row.get("solution") or "")
    default_task = "questions"
    is_gsm8k = "####" in answer
    if is_gsm8k:
        worked, _, result = answer.rpartition("####")
        solution = worked.strip()
        answer = result.strip().replace(",", "")
        default_task = "gsm8k"
    if answered == "solution":
        boxed = BOXED.findall(answer)
        if boxed:
            answer = boxed[-1]
        elif not is_gsm8k:
            raise InvalidRow("no_answer", "the solution marks no result (#### or \\boxed{})")
    if not answer:
        raise InvalidRow("no_answer", "the answer is empty")

    group = ""
    for name in GROUPS:
        if isinstance(row.get(name), (str, int)):
            group = name
            break
    used = {asked, answered, "solution", "task", group}
    meta = {str(key): value for key, value in row.items() if key not in used}
    return {
        "prompt": as_messages(row[asked], "user", Counter()),
        "answer": answer,
        "task": task or str(row.get("task") or default_task),
        "group": str(row[group]) if group else "",
        "meta": json.dumps(meta, ensure_ascii=False, sort_keys=True, default=str),
        "solution": solution,
    }
