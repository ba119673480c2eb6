"""What lm-evaluation-harness returns -> the scores and answers of an evaluation.

A task is a task of the scores, with the group ``all``. A group of the harness (mmlu) is one task:
its members are groups, and the harness's own average over them is ``all``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.data.intervals import wilson

Scores = dict[str, dict[str, dict[str, float]]]  # task -> group -> metric
ALL = "all"
NO_FILTER = "none"


def read_results(
    results: Mapping[str, Any], tasks: Mapping[str, Any], ctx: Context
) -> tuple[Scores, list[dict[str, Any]]]:
    """(scores, rows of answers.jsonl) of one model.

    Args:
        results: what ``lm_eval.evaluator.evaluate`` returned.
        tasks: what lm_eval_tasks.load() returned.
    """
    scores: Scores = {}
    answers: list[dict[str, Any]] = []
    places = places_of(tasks)
    for name in tasks["tasks"]:
        samples = results["samples"][name]
        values = metrics_of(results["results"][name], samples, f"{ctx.step}: {name}", ctx)
        for task, group in places[name]:
            scores.setdefault(task, {})[group] = values
        task, group = places[name][0]
        answers += [
            {"task": task, "group": group, **row} for row in rows_of(samples, _main(values))
        ]
    for name in tasks["groups"]:
        task, group = places[name][0]
        members = [scores[owner][part] for owner, part in _members(name, tasks, places)]
        aggregated = results.get("groups", {}).get(name, {})
        if values := group_metrics(aggregated, members):
            scores.setdefault(task, {})[group] = values
    return scores, answers


def places_of(tasks: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Name of a task or group of the harness -> where its scores stand: (task, group)."""
    places: dict[str, list[tuple[str, str]]] = {}
    children = {child for group in tasks["groups"].values() for child in group.child_names}
    for name, group in tasks["groups"].items():
        if name in children:
            continue
        places.setdefault(name, []).append((name, ALL))
        inner = [part.name for part in group.get_all_groups()]
        leaves = [task.task_name for task in group.get_all_tasks()]
        for member in (*inner, *leaves):
            if member != name:
                places.setdefault(member, []).append((name, member))
    for name in tasks["tasks"]:
        places.setdefault(name, [(name, ALL)])
    return places


def _members(
    name: str, tasks: Mapping[str, Any], places: Mapping[str, Sequence[tuple[str, str]]]
) -> Iterator[tuple[str, str]]:
    for task in tasks["groups"][name].get_all_tasks():
        yield places[task.task_name][0]


def metrics_of(
    values: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], where: str, ctx: Context
) -> dict[str, float]:
    """The metrics of a task; those that are shares have intervals, and the first is ``right``."""
    metrics: dict[str, float] = {}
    shares: dict[str, tuple[float, int]] = {}  # metric -> right, number
    for metric, filter_name, value in _numbers(values):
        name = _name(metric, filter_name)
        if not math.isfinite(value):
            ctx.say(f"{where}: {name} is {value}, which is no number, and left out")
            continue
        metrics[name] = value
        marks = [row[metric] for row in samples if row["filter"] == filter_name and metric in row]
        if marks and all(mark in (0, 1) for mark in map(_plain, marks)):
            right = float(sum(marks))
            if math.isclose(right / len(marks), value, abs_tol=1e-9):
                shares[name] = right, len(marks)
    number = len({row["doc_id"] for row in samples})
    return _with_intervals(metrics, shares, number)


def group_metrics(
    values: Mapping[str, Any], members: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """The harness's averages over a group; with intervals where they are those of all questions."""
    metrics = {_name(metric, kind): value for metric, kind, value in _numbers(values)}
    total = int(sum(member["n"] for member in members))
    shares: dict[str, tuple[float, int]] = {}
    for name, value in metrics.items():
        if all(f"{name}_low" in member for member in members):
            right = sum(member[name] * member["n"] for member in members)
            if math.isclose(right / total, value, abs_tol=1e-9):
                shares[name] = float(round(right)), total
    return _with_intervals(metrics, shares, total) if metrics else {}


def _with_intervals(
    metrics: Mapping[str, float], shares: Mapping[str, tuple[float, int]], number: int
) -> dict[str, float]:
    scores: dict[str, float] = {}
    named = dict(shares)
    if shares:
        main = next(iter(shares))
        scores["right"] = metrics[main]
        named["right"] = shares[main]
    scores |= metrics
    scores["n"] = number
    for name, (right, trials) in named.items():
        scores[f"{name}_low"], scores[f"{name}_high"] = wilson(right, trials)
    return scores


def _main(values: Mapping[str, float]) -> str:
    """The metric that ``right`` repeats, "" if there is none."""
    names = [name for name in values if name != "right" and f"{name}_low" in values]
    return names[0] if names else ""


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(metric, filter, value) of the harness's keys, such as ``acc,none``; no standard errors."""
    for key, value in values.items():
        metric, comma, filter_name = key.partition(",")
        number = _plain(value)
        if comma and not metric.endswith("_stderr") and isinstance(number, (int, float)):
            yield metric, filter_name, float(number)


def _name(metric: str, filter_name: str) -> str:
    return metric if filter_name == NO_FILTER else f"{metric} ({filter_name})"


def rows_of(samples: Sequence[Mapping[str, Any]], main: str) -> list[dict[str, Any]]:
    """A row of each question: prompt, wanted, answer, right, metrics and all that was returned.

    main: the metric whose 1 is ``right``; the answer is what its filter took.
    """
    by_question: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_question.setdefault(sample["doc_id"], []).append(sample)
    rows = []
    for number, filtered in by_question.items():
        metrics: dict[str, Any] = {}
        chosen = filtered[0]
        for sample in filtered:
            of_filter = {_name(m, sample["filter"]): _plain(sample[m]) for m in sample["metrics"]}
            metrics |= of_filter
            if main in of_filter:
                chosen = sample
        row = {
            "question": number + 1,
            "prompt": str(chosen["arguments"][0][0]),
            "wanted": _wanted(chosen),
            "answer": _answer(chosen),
        }
        if main:
            row["right"] = metrics.get(main) == 1
        rows.append({**row, "metrics": metrics, "returned": _plain(chosen["resps"])})
    return rows


def _choices(sample: Mapping[str, Any]) -> list[str]:
    """The continuations that were compared; contexts where these are what differs."""
    pairs = [pair for pair in sample["arguments"] if len(pair) > 1 and isinstance(pair[1], str)]
    contexts = list(dict.fromkeys(str(pair[0]) for pair in pairs if pair[0]))
    if len(contexts) > 1:
        return contexts
    return [str(pair[1]) for pair in pairs if pair[0] or not contexts]


def _wanted(sample: Mapping[str, Any]) -> str:
    target, choices = _plain(sample["target"]), _choices(sample)
    targets = target if isinstance(target, list) else [target]
    named = [
        choices[one].strip() if isinstance(one, int) and 0 <= one < len(choices) else str(one)
        for one in targets
    ]
    return " | ".join(named)


def _answer(sample: Mapping[str, Any]) -> str:
    """What was written, or the most probable of several continuations."""
    returned, choices = sample["filtered_resps"], _choices(sample)
    if len(choices) > 1:
        likelihoods = [pair[0] for pair in returned[: len(choices)]]
        return choices[likelihoods.index(max(likelihoods))].strip()
    first = returned[0]
    return first if isinstance(first, str) else str(_plain(first))


def _plain(value: Any) -> Any:
    """The same in types that JSON has."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value.item() if hasattr(value, "item") else value  # type: ignore[union-attr]
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
