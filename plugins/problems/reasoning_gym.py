"""problems.reasoning_gym: problems of procedural tasks (Stojanovski et al. 2025), made offline.

Each task makes as many problems as wanted, easy or hard by its own settings, and scores answers by
a rule. The package is an extra: ``pip install "llmstages[reasoning_gym]"``.

What is guarded against: its seeds overlap (problem i of seed s is problem i-1 of seed s+1), so all
are made from one seed, and the question decides whether a problem is for practice or for the test.
Scorers that run what the model says, or pay for any text, are not offered. Answers are graded by
the grader ``reasoning_gym``, which pays for a full score alone.
"""

from __future__ import annotations

import dataclasses as dc
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data import tables
from llmstages.data.reasoning_tasks import BROKEN, RUNS_ANSWERS
from llmstages.data.splits import choose_tests, comparable
from llmstages.text.messages import message

MOST_ALIKE = 0.5  # share of problems of a task with the same answer from which it is said
EXAMPLES = ("chain_sum", "basic_arithmetic", "products")


class ReasoningGym:
    """Problems of chosen tasks of reasoning-gym."""

    @dc.dataclass(frozen=True)
    class Config:
        tasks: dict[str, Any] = option(
            help="task -> its settings (README of reasoning-gym); +problems.tasks.gcd={} adds one",
            factory=lambda: {name: {} for name in EXAMPLES},
        )
        count: int = option(1000, "problems of each task", ge=1)
        seed: int = option(20260101, "all problems follow from it; another seed is no new data")
        test_fraction: float = option(
            0.1, "share of the problems kept for evaluation (role = test)", ge=0, le=1
        )
        suffix: str = option(
            "Answer with only the final answer.", "what stands below every question"
        )

    inputs: dict[str, str] = {}
    output = "problems"
    version = "1"
    smoke: Mapping[str, Any] = {"count": 20}

    def validate(self, config: Config, step: str) -> None:
        """Refuse tasks whose scorer cannot be trusted, before the package is imported."""
        for name in config.tasks:
            if name in RUNS_ANSWERS:
                raise StageError(
                    f"{step}.tasks.{name} is not offered: its scorer runs what the model says as "
                    "code"
                )
            if name in BROKEN:
                raise StageError(
                    f"{step}.tasks.{name} is not offered: its scorer pays for any text, fails, or "
                    "needs other tasks"
                )
        if not config.tasks:
            raise StageError(f"{step}.tasks is empty; try {step}.tasks.{EXAMPLES[0]}={{}}")

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The number of problems, in all and for evaluation."""
        number = config.count * len(config.tasks)
        return {
            "examples": number,
            "test": round(number * config.test_fraction),
            "groups": len(config.tasks),
        }

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        rows: list[dict[str, Any]] = []
        for task, settings in config.tasks.items():
            of_task = list(_rows(task, dict(settings or {}), config, ctx))
            _describe(task, of_task, config, ctx)
            rows += of_task
        questions = [comparable(row["prompt"][-1]["content"]) for row in rows]
        tests = choose_tests(questions, config.test_fraction)
        for row, is_test in zip(rows, tests, strict=True):
            row["role"] = "test" if is_test else "train"
        tables.save(rows, ctx.out / "data")
        return {"examples": len(rows), "test": sum(tests), "groups": len(config.tasks)}


def _rows(
    task: str, settings: dict[str, Any], config: ReasoningGym.Config, ctx: Context
) -> Iterator[dict[str, Any]]:
    """The different problems of a task that have an answer."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise StageError(
            f'{ctx.step} needs reasoning-gym: pip install "llmstages[reasoning_gym]"'
        ) from error
    try:
        problems = reasoning_gym.create_dataset(
            task, size=config.count, seed=config.seed, **settings
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise StageError(f"{ctx.step}.tasks.{task}: {error}") from error
    seen: set[str] = set()
    for problem in problems:
        question = str(problem["question"])
        if problem["answer"] is None or question in seen:
            continue
        seen.add(question)
        asked = f"{question}\n{config.suffix}" if config.suffix else question
        yield {
            "prompt": [message("user", asked)],
            "answer": str(problem["answer"]),
            "task": "reasoning_gym",
            "group": task,
            "grader": "reasoning_gym",
            "meta": json.dumps(
                {"task": task, "question": question, "metadata": problem["metadata"]}, default=str
            ),
        }


def _describe(
    task: str, rows: list[dict[str, Any]], config: ReasoningGym.Config, ctx: Context
) -> None:
    """Say how many problems came out, and what saying the commonest answer would earn."""
    if not rows:
        raise StageError(f"{ctx.step}.tasks.{task} makes no problem with a single answer")
    if len(rows) < config.count:
        ctx.say(
            f"{ctx.step}: {task} made {len(rows)} different problems with an answer, not "
            f"{config.count}"
        )
    answer, number = Counter(row["answer"] for row in rows).most_common(1)[0]
    if number >= MOST_ALIKE * len(rows):
        ctx.say(
            f"{ctx.step}: {answer!r} is the answer to {number} of {len(rows)} problems of {task}, "
            "so a model that always says it is often right"
        )
