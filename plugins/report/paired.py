"""Differences between models that were asked the same questions, by their answers themselves.

Two models that answer the same questions mostly succeed and fail together, so a difference between
them is surer than the intervals of both shares say. evaluate keeps every answer (answers.jsonl);
here those of two models are put side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.data.intervals import mcnemar, of_paired_difference
from llmstages.plugins.report.claims import Pairs, Term
from llmstages.plugins.report.steps import Chain

FILE = "answers.jsonl"
# Metric -> whether an answer counts
COUNTED = {
    "right": lambda row: bool(row["right"]),
    "refused": lambda row: bool(row["refused"]),
    "wrong": lambda row: not row["right"] and not row["refused"],
}
Key = tuple[str, str, str]  # task, group, model


class PairedAnswers:
    """The kept answers of a run, read when a claim asks for them."""

    def __init__(self, chain: Chain) -> None:
        self._steps = {step.name: step for step in chain.steps}
        self._answers: dict[str, dict[Key, dict[Any, Mapping[str, Any]]]] = {}

    def compare(self, terms: Sequence[Term]) -> Pairs | None:
        """The paired difference of two terms; None where they are not of the same questions."""
        if len(terms) != 2 or terms[0].sign == terms[1].sign or terms[0].step != terms[1].step:
            return None
        plus, minus = sorted(terms, key=lambda term: -term.sign)
        keys = [_key_of(plus.metric), _key_of(minus.metric)]
        if None in keys or plus.metric.rpartition("/")[2] != minus.metric.rpartition("/")[2]:
            return None
        counts = COUNTED.get(plus.metric.rpartition("/")[2])
        answers = self._of_step(plus.step)
        first, second = (answers.get(key) for key in keys if key)
        if counts is None or not first or not second or first.keys() != second.keys():
            return None
        questions = list(first)
        if any(first[one]["prompt"] != second[one]["prompt"] for one in questions):
            return None
        ours = [counts(first[one]) for one in questions]
        theirs = [counts(second[one]) for one in questions]
        interval = of_paired_difference(ours, theirs)
        return Pairs(interval, len(questions), mcnemar(ours, theirs))

    def _of_step(self, name: str) -> dict[Key, dict[Any, Mapping[str, Any]]]:
        """Task, group and model -> question -> its answer."""
        if name not in self._answers:
            tables: dict[Key, dict[Any, Mapping[str, Any]]] = {}
            step = self._steps.get(name)
            for row in step.lines(FILE) if step else ():
                if {"task", "group", "model", "question", "right", "refused"} <= row.keys():
                    key = (row["task"], row["group"], row["model"])
                    tables.setdefault(key, {})[row["question"]] = row
            self._answers[name] = tables
        return self._answers[name]


def _key_of(metric: str) -> Key | None:
    """Task, group and model of a metric ``TASK/GROUP/MODEL/NAME``."""
    parts = metric.split("/")
    return (parts[0], parts[1], parts[2]) if len(parts) == 4 else None
