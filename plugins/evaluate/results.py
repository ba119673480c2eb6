"""What evaluations share: the questions of an artifact, and the scores of several models."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llmstages.core.stage import Artifact, Context


def load_questions(artifact: Artifact, limit: int, seed: int) -> list[dict[str, Any]]:
    """The questions of a problems artifact, never those of the role ``train``.

    They are the same for every model. Columns that a plain problems artifact may lack are filled
    in.

    Args:
        limit: questions of each task and group at most, drawn at random by the seed; 0 = all.
    """
    from llmstages.data import tables

    questions = []
    for row in tables.load(artifact.path / "data"):
        if row.get("role") == "train":
            continue
        task, group = row.get("task") or "problems", row.get("group") or "all"
        defaults = {"meta": "{}", "role": "test", "style": "chat"}
        questions.append({**defaults, **row, "task": task, "group": group})
    return draw(questions, limit, seed) if limit else questions


def draw(questions: Sequence[dict[str, Any]], limit: int, seed: int) -> list[dict[str, Any]]:
    """At most ``limit`` questions of each task and group, drawn at random, in their order."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, question in enumerate(questions):
        places.setdefault((question["task"], question["group"]), []).append(place)
    rng = random.Random(seed)
    chosen: list[int] = []
    for group in places.values():
        chosen += rng.sample(group, min(limit, len(group)))
    return [questions[place] for place in sorted(chosen)]


def report_unknown_models(options: str, named: Iterable[str], ctx: Context) -> None:
    """Say which steps the options name that are not evaluated: a typo would ask nobody."""
    for name in sorted(set(named) - {artifact.name for artifact in ctx.many("models")}):
        ctx.say(f"{ctx.step}: {options} names {name!r}, but no such model is evaluated here")


class Results:
    """Scores, answers and metrics of all models and evaluators.

    An evaluator may report a task, or a fact, of the same name as another one does, since all get
    the same questions. The evaluator that used a name first keeps it; the name of another one
    becomes ``EVALUATOR: NAME``, so that no number is overwritten.

    Attributes:
        scores: task -> group -> model -> metric -> value.
        answers: rows of the evaluators, with the model.
        metrics: the same numbers under one name each.
    """

    def __init__(self, ctx: Context) -> None:
        self.scores: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []
        self.metrics: dict[str, float] = {}
        self._task_name = _unique_names("task", ctx)
        self._fact_name = _unique_names("fact", ctx)

    def add(
        self,
        model: str,
        evaluator: str,
        scores: Mapping[str, Mapping[str, Mapping[str, float]]],
        answers: Any,
        facts: Mapping[str, float],
    ) -> None:
        """Add what an evaluator returned for a model."""
        for answer in answers:
            row = {"model": model, **answer}
            if "task" in row:
                row["task"] = self._task_name(evaluator, row["task"])
            self.answers.append(row)
        for name, value in facts.items():
            self.metrics[f"{model}/{self._fact_name(evaluator, name)}"] = value
        for task, groups in scores.items():
            unique = self._task_name(evaluator, task)
            for group, values in groups.items():
                self.scores.setdefault(unique, {}).setdefault(group, {})[model] = values
                for name, value in values.items():
                    self.metrics[f"{unique}/{group}/{model}/{name}"] = value


def _unique_names(what: str, ctx: Context) -> Callable[[str, str], str]:
    """A function (evaluator, name) -> a name that no other evaluator has."""
    owners: dict[str, str] = {}
    reported: set[str] = set()

    def unique(evaluator: str, name: str) -> str:
        owner = owners.setdefault(name, evaluator)
        if owner == evaluator:
            return name
        prefixed = f"{evaluator}: {name}"
        if prefixed not in reported:
            reported.add(prefixed)
            ctx.say(
                f"{ctx.step}: the evaluators {owner!r} and {evaluator!r} both have a {what} "
                f"{name!r}; that of {evaluator!r} is saved as {prefixed!r}"
            )
        return prefixed

    return unique
