"""Questions with an answer that a program can check."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from llmstages.data.formats.dialogues import ASKED
from llmstages.data.formats.turns import InvalidRow, Row, as_messages

GROUPS = ("group", "level", "subject", "category", "type")


def problem(row: Row, task: str = "") -> dict[str, Any]:
    """{prompt, answer, task, group, meta, solution} of a row: GSM8K (Cobbe et al. 2021), or a question with an answer.

    answer: what a checker compares; of a worked answer that ends in ``#### 1,234`` it is ``1234``. solution: the worked
    answer, or "". meta: the fields not used, as JSON text.
    """
    asked = next((name for name in ASKED if row.get(name)), "")
    told = next(
        (
            name
            for name in ("answer", "target", "final_answer", "expected_answer", "label", "solution")
            if row.get(name) is not None
        ),
        "",
    )
    if not asked or not told:
        raise InvalidRow(
            "format",
            f"needs a question ({', '.join(ASKED)}) and an answer; the row has {', '.join(map(str, row))}",
        )
    answer, solution = str(row[told]).strip(), str(row.get("solution") or "")
    if "####" in answer:
        solution, _, answer = answer.rpartition("####")
        solution, answer, found = solution.strip(), answer.strip().replace(",", ""), "gsm8k"
    else:
        found = "questions"
    if told == "solution":
        boxed = re.findall(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}", answer)
        if not boxed:
            raise InvalidRow("no_answer", "the solution marks no result (#### or \\boxed{})")
        answer = boxed[-1]
    if not answer:
        raise InvalidRow("no_answer", "the answer is empty")
    group = next((name for name in GROUPS if isinstance(row.get(name), (str, int))), "")
    used = {asked, told, "solution", "task", group}
    meta = {str(key): value for key, value in row.items() if key not in used}
    return {
        "prompt": as_messages(row[asked], "user", Counter()),
        "answer": answer,
        "task": task or str(row.get("task") or found),
        "group": str(row[group]) if group else "",
        "meta": json.dumps(meta, ensure_ascii=False, sort_keys=True, default=str),
        "solution": solution,
    }
