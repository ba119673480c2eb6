"""Differences between models that were asked the same questions, by their answers themselves.

Two models that answer the same questions mostly succeed and fail together, so a difference between
them is surer than the intervals of both shares say. evaluate keeps every answer (answers.jsonl);
here those of two models are put side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.data.intervals import mcnemar, of_paired_difference
from llmstages.plugins.report.claims import Pairs, Term
from llmstages.plugins.report.steps import Chain

FILE = "answers.jsonl"
# Metric -> whether an answer counts. Answers to continue a text are never refusals.
COUNTED = {
    "right": lambda row: bool(row["right"]),
    "refused": lambda row: bool(row.get("refused")),
    "wrong": lambda row: not row["right"] and not row.get("refused"),
}
NEEDED = {"task", "group", "model", "prompt", "wanted", "right"}
Key = tuple[str, str, str]  # task, group, model
# What was asked, what is right, and the how many-th time that is. Numbers of questions would not
# do: a model that is asked fewer tasks counts them otherwise.
Question = tuple[str, str, int]
Answers = dict[Question, Mapping[str, Any]]


class PairedAnswers:
    """The kept answers of a run, read when a claim asks for them."""

    def __init__(self, chain: Chain) -> None:
        self._steps = {step.name: step for step in chain.steps}
        self._answers: dict[str, dict[Key, Answers]] = {}

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
        ours = [counts(first[question]) for question in first]
        theirs = [counts(second[question]) for question in first]
        interval = of_paired_difference(ours, theirs)
        return Pairs(interval, len(first), mcnemar(ours, theirs))

    def _of_step(self, name: str) -> dict[Key, Answers]:
        """Task, group and model -> question -> its answer."""
        if name not in self._answers:
            tables: dict[Key, Answers] = {}
            times: Counter[tuple[Key, str, str]] = Counter()
            step = self._steps.get(name)
            for row in step.lines(FILE) if step else ():
                if not row.keys() >= NEEDED:
                    continue
                key = (row["task"], row["group"], row["model"])
                asked = (key, str(row["prompt"]), str(row["wanted"]))
                tables.setdefault(key, {})[(*asked[1:], times[asked])] = row
                times[asked] += 1
            self._answers[name] = tables
        return self._answers[name]


def _key_of(metric: str) -> Key | None:
    """Task, group and model of a metric ``TASK/GROUP/MODEL/NAME``."""
    parts = metric.split("/")
    return (parts[0], parts[1], parts[2]) if len(parts) == 4 else None
