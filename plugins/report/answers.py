"""What the models answered: the same prompts side by side, calls of tools, answers to a task."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.plugins.report.scores import in_recipe_order
from llmstages.plugins.report.steps import Chain

CALL = re.compile(r"\[(\w+): ")
MAX_CALLS = 2  # exchanges with tools that are shown
MAX_PROMPTS = 2  # to which the replies of some models are shown


def segments(answer: str) -> list[dict[str, str]]:
    """A written answer in parts: ``{kind, tool, text}``; kind is call, result or text.

    Evaluations write a dialogue with tools as "[TOOL: request] [result: response] answer".
    """
    parts = []
    rest = answer
    match = CALL.match(rest)
    while match:
        end = _end_of_bracket(rest, match.end())
        kind = "result" if match[1] == "result" else "call"
        parts.append({"kind": kind, "tool": match[1], "text": rest[match.end() : end]})
        rest = rest[end + 1 :].lstrip(" ")
        match = CALL.match(rest)
    if rest or not parts:
        parts.append({"kind": "text", "tool": "", "text": rest})
    return parts


def _end_of_bracket(text: str, start: int) -> int:
    """Where the bracket that was open at ``start`` ends.

    A result may hold brackets itself. So the end is before the next bracket that opens, else at the
    last bracket before more text, else at the last one.
    """
    end = text.find("] [", start)
    if end < 0:
        end = text.rfind("] ")
    if end < 0:
        end = text.rfind("]")
    return end if end >= start else len(text)


def _cell(row: Mapping[str, Any], refusals: Collection[str] = ()) -> dict[str, Any]:
    """An answer in parts, with its verdict: right, refused or other.

    The verdict is the evaluator's. Nothing is graded here, where the rule would be another one.
    """
    parts = segments(str(row["answer"]))
    final = parts[-1]["text"] if parts[-1]["kind"] == "text" else ""
    verdict = "other"
    if row.get("right"):
        verdict = "right"
    elif row.get("refused") or final in refusals:
        verdict = "refused"
    return {"parts": parts, "verdict": verdict}


@dataclass
class _Prompts:
    """The questions of one group of a task: key -> {prompt, wanted, said: model -> cell}."""

    task: str
    group: str
    entries: dict[str, dict[str, Any]]

    def model_count(self) -> int:
        """How many models were asked any of the prompts."""
        return len(self.usual_verdicts())

    def usual_verdicts(self) -> dict[str, str]:
        """Model -> its most frequent verdict."""
        verdicts: dict[str, Counter[str]] = {}
        for entry in self.entries.values():
            for model, cell in entry["said"].items():
                verdicts.setdefault(model, Counter())[cell["verdict"]] += 1
        return {model: counts.most_common(1)[0][0] for model, counts in verdicts.items()}

    def most_typical_first(self) -> list[str]:
        """Keys sorted by the number of models that do what they usually do."""
        usual = self.usual_verdicts()

        def typical_models(key: str) -> int:
            said = self.entries[key]["said"]
            return sum(usual[model] == cell["verdict"] for model, cell in said.items())

        return sorted(self.entries, key=typical_models, reverse=True)


def side_by_side(chain: Chain, max_prompts: int) -> list[dict[str, Any]]:
    """The same prompts answered by every model, one table per evaluation.

    To be fair, the prompts shown are the most typical ones of each task, not the most telling.
    """
    # The sentence with which a model was taught to refuse stands in the step that taught it.
    refusals = {str(step.config.get("refusal") or "") for step in chain.steps} - {""}
    tables = []
    for step in chain.of_kind("scores"):
        prompts = _prompts_by_group(step.lines("answers.jsonl"), refusals)
        rows = _choose(prompts, max_prompts)
        if rows:
            answered = {model for row in rows for model in row["said"]}
            models = in_recipe_order(answered, chain)
            tables.append({"models": models, "rows": rows, "step": step.name})
    return tables


def _prompts_by_group(
    rows: Sequence[Mapping[str, Any]], refusals: Collection[str]
) -> list[_Prompts]:
    by_group: dict[tuple[str, str], _Prompts] = {}
    for row in rows:
        task, group = str(row["task"]), str(row.get("group") or "")
        prompts = by_group.setdefault((task, group), _Prompts(task, group, {}))
        wanted = row.get("wanted", "")
        new = {"prompt": str(row["prompt"]), "wanted": wanted, "said": {}}
        entry = prompts.entries.setdefault(_key(row), new)
        entry["said"][row["model"]] = _cell(row, refusals)
    return list(by_group.values())


def _choose(by_group: Sequence[_Prompts], max_prompts: int) -> list[dict[str, Any]]:
    """Prompts taken in turn from each group of each task, those of most models first.

    Groups that only one model was asked are left out: there is nothing to compare.
    """
    compared = [prompts for prompts in by_group if prompts.model_count() > 1]
    compared.sort(key=_Prompts.model_count, reverse=True)
    queues = [prompts.most_typical_first() for prompts in compared]
    # One prompt of each group, then a second one of each, until there are enough.
    taken = [0] * len(queues)
    while sum(taken) < max_prompts and taken != list(map(len, queues)):
        for index, queue in enumerate(queues):
            if taken[index] < len(queue) and sum(taken) < max_prompts:
                taken[index] += 1

    rows = []
    for prompts, queue, count in zip(compared, queues, taken, strict=True):
        for key in queue[:count]:
            heading = {"task": prompts.task, "group": prompts.group}
            rows.append(heading | prompts.entries[key])
    return rows


def _key(row: Mapping[str, Any]) -> str:
    """What tells a question from others, also from one whose last turn is the same."""
    return f"{row.get('task')} {row.get('question', '')} {row['prompt']}"


def tool_calls(chain: Chain, models: Collection[str]) -> list[dict[str, Any]]:
    """Right answers for which one of the models called a tool, part by part; one for each tool."""
    by_tool: dict[str, dict[str, Any]] = {}
    for row in _answers_of(chain, models):
        cell = _cell(row)
        tool = _first_tool(cell["parts"])
        if tool and tool not in by_tool and cell["verdict"] == "right":
            by_tool[tool] = {
                "prompt": str(row["prompt"]),
                "model": row["model"],
                "parts": cell["parts"],
            }
    return list(by_tool.values())[:MAX_CALLS]


def _first_tool(parts: Sequence[Mapping[str, str]]) -> str:
    """The tool of the first call in an answer; "" if there is none."""
    for part in parts:
        if part["kind"] == "call":
            return part["tool"]
    return ""


def replies(chain: Chain, models: Sequence[str]) -> list[dict[str, Any]]:
    """What each of the models answers to the first prompts that all of them were asked."""
    for step in chain.of_kind("scores"):
        by_key: dict[str, tuple[str, dict[str, str]]] = {}
        for row in step.lines("answers.jsonl"):
            if row["model"] in models:
                _, answers = by_key.setdefault(_key(row), (str(row["prompt"]), {}))
                answers[row["model"]] = str(row["answer"])
        rows = []
        for prompt, answers in by_key.values():
            if set(answers) == set(models):
                said = {model: answers[model] for model in models}
                rows.append({"prompt": prompt, "said": said})
        if rows:
            return rows[:MAX_PROMPTS]
    return []


def first_answers(chain: Chain, models: Collection[str], task: str) -> list[dict[str, Any]]:
    """What each of the models answers to the first question of each group of a task."""
    by_group: dict[str, dict[str, Any]] = {}
    first_key: dict[str, str] = {}
    for row in _answers_of(chain, models):
        if row["task"] != task:
            continue
        group, key = str(row.get("group")), _key(row)
        entry = by_group.setdefault(group, {"prompt": str(row["prompt"]), "said": {}})
        if first_key.setdefault(group, key) == key:
            entry["said"][row["model"]] = str(row["answer"])
    return list(by_group.values())


def _answers_of(chain: Chain, models: Collection[str]) -> list[dict[str, Any]]:
    """Rows of all answers that were given by some models."""
    rows = []
    for step in chain.of_kind("scores"):
        rows += [row for row in step.lines("answers.jsonl") if row["model"] in models]
    return rows
