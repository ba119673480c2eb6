"""dialogues.jagged: the questions of problems.jagged, answered at once, in steps, or with Python.

direct  the answer alone: all of it in the few tokens that a model then has to think
steps   worked out in text before the answer: letters one by one with a running count, decimals of
        equal length, partial products, months
code    a row with ``tool``, ``argument`` (one line of Python) and ``answer``; tools.search_tokens
        runs the tool and puts the call and its result in

The wording does not give the way away, unless ``asked`` says so. No question is about a word,
pair of numbers, date or set of names of a test (llmstages/data/jagged). Rows of ``code`` must go
through tools.search_tokens with the tool: without it they teach to answer at once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.data.jagged import tasks
from llmstages.data.jagged.items import Item
from llmstages.text.messages import message

WAYS = ("direct", "steps", "code")
SMALLEST_SUM = 1e-9  # of the three shares


@dataclass(frozen=True)
class JaggedConfig(tasks.QuestionOptions):
    count: int = option(200, "dialogues of each task and size", ge=1)
    direct: float = option(1 / 3, "weight of answers that are given at once", ge=0)
    steps: float = option(1 / 3, "weight of answers that are worked out in text", ge=0)
    code: float = option(1 / 3, "weight of answers that are worked out in Python", ge=0)
    asked: float = option(
        0.0, "share of the questions whose wording asks for the way they are answered", ge=0, le=1
    )
    tool: str = option("python", "name of the tool that runs the code")

    def __post_init__(self) -> None:
        if self.direct + self.steps + self.code < SMALLEST_SUM:
            raise ValueError("direct, steps and code are all 0, so there would be no dialogue")
        if self.code and not self.tool:
            raise ValueError("code > 0 needs the name of a tool; tool is empty")


class Jagged:
    """Dialogues of jagged abilities in one of three ways, or a mixture."""

    Config = JaggedConfig
    smoke: ClassVar[Mapping[str, Any]] = {"count": 6}
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"

    def validate(self, config: JaggedConfig, step: str) -> None:
        """Refuse tasks and sizes that do not exist."""
        tasks.validate(config, step)

    def run(self, config: JaggedConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        rng = random.Random(f"jagged ways {config.seed}")
        rows: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        for task, size in config.sizes():
            items = tasks.draw(task, size, config.count, config, test=False, purpose="dialogues")
            tasks.report_counts(task, size, items, config.count, ctx, "train")
            for item, way in zip(items, ways(len(items), config, rng), strict=True):
                wording = way if rng.random() < config.asked else "open"
                rows.append({**dialogue(item, way, wording, config.tool), "task": task})
                counts[way] += 1
        rng.shuffle(rows)
        tables.save(rows, ctx.out / "data")
        if counts["code"]:
            ctx.say(
                f"{ctx.step}: {counts['code']} of {len(rows)} dialogues call the tool "
                f"{config.tool!r}; tools.search_tokens runs the calls"
            )
        return {"dialogues": len(rows), **{way: counts[way] for way in WAYS}}


def ways(number: int, config: JaggedConfig, rng: random.Random) -> list[str]:
    """A way for each of so many items, in the shares of the config up to rounding."""
    weights = {way: getattr(config, way) for way in WAYS}
    total = sum(weights.values())
    chosen: list[str] = []
    until = 0.0
    for way, weight in weights.items():
        until += weight * number / total
        chosen += [way] * (round(until) - len(chosen))
    rng.shuffle(chosen)
    return chosen


def dialogue(item: Item, way: str, wording: str, tool: str) -> dict[str, Any]:
    """A row: messages, and for ``code`` the call that tools.search_tokens runs.

    Other rows name no tool, so tools.search_tokens must be told not to guess one (guess=false).
    """
    answers = {
        "direct": item.answer,
        "steps": f"{item.steps} The answer is {item.answer}.",
        "code": f"The answer is {item.answer}.",
    }
    question = item.question + tasks.WORDINGS[wording]
    row: dict[str, Any] = {
        "messages": [message("user", question), message("assistant", answers[way])],
        "tool": "",
        "argument": "",
        "page": "",
        "answer": item.answer,
        "way": way,
    }
    if way == "code":
        row |= {"tool": tool, "argument": item.code}
    return row
