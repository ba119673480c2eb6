"""What a model does with the questions that the first model had right, and with the others.

A model that learned to refuse is right to refuse what the first model did not know, and wrong to
refuse what it knew. The first model's own answer to each question, right or not, is what it knew:
one greedy answer, so a lucky guess counts as knowledge and a slip does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.data.intervals import wilson

THRESHOLD = "threshold"  # role of questions that are never scored
ALL = "all questions"
BEFORE = {True: "right before", False: "not right before"}
Scores = dict[str, dict[str, dict[str, float]]]  # task -> group -> metric


def compare(answers: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]) -> Scores:
    """Right, refused and wrong by what the first model did, over all groups of a task.

    The group ``all questions`` has both parts together, and ``wrong_ratio``: the wrong answers for
    each one that the first model gave to the same questions.

    Args:
        answers: rows of an evaluator for one model, with ``right``, ``refused`` and ``role``; rows
            without them, of evaluators that count no refusals, are left out.
        first: the rows of the same evaluator for the first model.
    """
    before = {_key(row): row for row in first if "refused" in row}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in answers:
        if "refused" not in row or row["role"] == THRESHOLD or _key(row) not in before:
            continue
        part = BEFORE[bool(before[_key(row)]["right"])]
        for group in (part, ALL):
            groups.setdefault((row["task"], group), []).append(row)
    scores: Scores = {}
    for (task, group), rows in groups.items():
        metrics = scores.setdefault(task, {})[group] = _shares(rows)
        wrong_before = sum(_is_wrong(before[_key(row)]) for row in rows)
        if group == ALL and wrong_before:
            metrics["wrong_ratio"] = sum(map(_is_wrong, rows)) / wrong_before
    return scores


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    # Not the number: models may be asked different tasks.
    return row["task"], row["group"], row["prompt"], row["wanted"]


def _is_wrong(row: Mapping[str, Any]) -> bool:
    return not row["right"] and not row["refused"]


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    right = sum(row["right"] for row in rows)
    refused = sum(row["refused"] for row in rows)
    counts = {"right": right, "refused": refused, "wrong": len(rows) - right - refused}
    metrics: dict[str, float] = {name: count / len(rows) for name, count in counts.items()}
    metrics["n"] = len(rows)
    for name, count in counts.items():
        metrics[f"{name}_low"], metrics[f"{name}_high"] = wilson(count, len(rows))
    return metrics
