"""Scores of evaluations: tasks of base models, knowledge by group, and the table of all scores."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from llmstages.plugins.report.steps import Chain, FinishedStep, natural_key

ModelScores = Mapping[str, Mapping[str, float]]  # model -> metric -> value
TaskScores = Mapping[str, ModelScores]  # group -> model -> metric -> value
WITH_TOOLS = " with tools"  # behind the name of a model in scores of evaluate.jagged
Scores = Mapping[str, TaskScores]  # task -> group -> model -> metric -> value


def evaluations(chain: Chain) -> list[tuple[FinishedStep, Scores]]:
    """(step, scores) of each evaluation."""
    return [(step, step.json("scores.json", {})) for step in chain.of_kind("scores")]


def models_of(groups: TaskScores) -> set[str]:
    """The models that were asked any question of a task."""
    return set().union(*groups.values())


def in_recipe_order(models: Iterable[str], chain: Chain) -> list[str]:
    """Models in the order of the recipe; names from outside the run come last.

    A model that was also asked with tools ("sft with tools") stands behind itself.
    """
    order = list(chain.by_name)

    def position(model: str) -> tuple[int, str]:
        name = model.removesuffix(WITH_TOOLS)
        return (order.index(name) if name in order else len(order), model)

    return sorted(models, key=position)


def base_tasks(
    chain: Chain, models: Collection[str], notes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Tasks that only the given models were asked, as bars by group with two examples each.

    Args:
        chain: the run.
        models: names of models, usually those of a chapter.
        notes: task -> a sentence about it. Tasks with a note come first, in this order.
    """
    shown = []
    for step, scores in evaluations(chain):
        answers = step.lines("answers.jsonl")
        with_note = [task for task in notes if task in scores]
        others = [task for task in scores if task not in notes]
        for task in with_note + others:
            groups = scores[task]
            asked = models_of(groups)
            if not asked or not asked.issubset(models):
                continue
            rows = [row for row in answers if row["task"] == task]
            shown.append({"task": task, "note": notes.get(task, "")} | _task(chain, groups, rows))
    return shown


def _task(chain: Chain, groups: TaskScores, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The bars and examples of a task whose scores are right answers or copied texts."""
    bars = []
    counts_copies = False
    for group in chain.sorted_groups(groups):
        for model, values in groups[group].items():
            counts_copies = counts_copies or "copied" in values
            value = values.get("right", values.get("copied"))
            if value is None:
                continue
            bars.append(
                {
                    "group": group,
                    "model": model,
                    "value": value,
                    "n": values.get("n"),
                    "bits": values.get("bits_per_byte"),
                }
            )
    if counts_copies:
        return {"bars": bars, "counts": "texts that copy", "examples": _copies(rows)}
    return {"bars": bars, "counts": "right answers", "examples": _continuations(rows)}


def _continuations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A right continuation of the best group and a wrong one of the worst group.

    ``head`` is the part that is graded; ``rest`` is what the model wrote after it.
    """
    graded = [_grade_start(row) for row in rows]
    by_group: dict[Any, list[bool]] = {}
    for row in graded:
        by_group.setdefault(row.get("group"), []).append(row["right"])

    def share(row: Mapping[str, Any]) -> float:
        marks = by_group[row.get("group")]
        return sum(marks) / len(marks)

    # The best and the worst group show what the bars mean; the first answer of each will do.
    best_first = sorted(graded, key=share, reverse=True)
    right = [row for row in best_first if row["right"]]
    wrong = [row for row in sorted(graded, key=share) if not row["right"]]
    return right[:1] + wrong[:1]


def _grade_start(row: Mapping[str, Any]) -> dict[str, Any]:
    """An answer split into the words that are graded and the rest."""
    answer = str(row["answer"])
    wanted = str(row.get("wanted") or "")
    right = bool(row.get("right"))
    head = wanted
    if not answer.startswith(wanted):
        word_count = len(wanted.split(" "))
        head = " ".join(answer.split(" ")[:word_count])
    return {**row, "right": right, "head": head, "rest": answer[len(head) :]}


def _copies(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The text that copies least and the one that copies most."""
    by_length = sorted(rows, key=lambda row: row.get("longest", 0))
    extremes = by_length
    if len(by_length) > 2:
        extremes = [by_length[0], by_length[-1]]
    examples = []
    for row in extremes:
        group = f"{row.get('longest', 0)} tokens in a row from the corpus"
        text = str(row["answer"])
        examples.append({**row, "right": False, "head": "", "rest": text, "group": group})
    return examples


def refusals(chain: Chain) -> list[dict[str, Any]]:
    """Right answers, refusals and wrong answers by group for each model; a table per evaluation.

    A table is about one task: that with most scores among those in which refusals were counted and
    occurred.
    """
    tables = []
    for step, scores in evaluations(chain):
        usable = [task for task in scores if _counts_refusals(scores[task])]
        if not usable:
            continue
        task = max(usable, key=lambda task: _score_count(scores[task]))
        groups = chain.sorted_groups(scores[task])
        rows = []
        for model in in_recipe_order(models_of(scores[task]), chain):
            values = [scores[task][group].get(model) for group in groups]
            rows.append({"model": model, "rule": "", "cells": list(map(_shares, values))})
            # A threshold was set for this model, so it was also scored with that rule.
            if step.metrics.get(f"{model}/threshold"):
                cells = list(map(_sure_shares, values))
                rows.append({"model": model, "rule": "answers only when sure", "cells": cells})
        tables.append({"task": task, "groups": groups, "rows": rows, "step": step.name})
    return tables


def _score_count(groups: TaskScores) -> int:
    return sum(map(len, groups.values()))


def _counts_refusals(groups: TaskScores) -> bool:
    if len(groups) < 2:
        return False
    occurred = False
    for by_model in groups.values():
        for values in by_model.values():
            if "refused" not in values or "wrong" not in values:
                return False
            occurred = occurred or values["refused"] > 0
    return occurred


def _shares(values: Mapping[str, float] | None) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "right": values["right"],
        "refused": values["refused"],
        "wrong": values["wrong"],
        "called": values.get("called", 0.0),
    }


def _sure_shares(values: Mapping[str, float] | None) -> dict[str, float] | None:
    """The shares if only answers above the threshold count; all others count as refusals."""
    if not values or "sure_right" not in values:
        return None
    right, wrong = values["sure_right"], values["sure_wrong"]
    return {
        "right": right,
        "refused": max(0.0, 1 - right - wrong),
        "wrong": wrong,
        "called": values.get("called", 0.0),
    }


def score_tables(chain: Chain) -> list[dict[str, Any]]:
    """Right answers by task and group (rows) and model (columns), one table per evaluation.

    Tasks that most models were asked come first.
    """
    tables = []
    for step, scores in evaluations(chain):
        asked = {task: models_of(groups) for task, groups in scores.items()}
        models = in_recipe_order(set().union(*asked.values()), chain)
        rows: list[dict[str, Any]] = []
        for task in sorted(scores, key=lambda task: (-len(asked[task]), natural_key(task))):
            rows += _table_rows(chain, task, scores[task], models)
        if rows:
            tables.append({"models": models, "rows": rows, "step": step.name})
    return tables


def _table_rows(
    chain: Chain, task: str, groups: TaskScores, models: Sequence[str]
) -> list[dict[str, Any]]:
    rows = []
    for index, group in enumerate(chain.sorted_groups(groups)):
        by_model = groups[group]
        sizes = {int(values["n"]) for values in by_model.values() if "n" in values}
        rows.append(
            {
                "task": task,
                "group": group,
                "first": index == 0,
                # The smallest and the largest number of questions that any model was asked.
                "sizes": sorted({min(sizes), max(sizes)}) if sizes else [],
                "cells": [by_model.get(model) for model in models],
            }
        )
    return rows
