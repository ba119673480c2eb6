"""problems.jagged: what people find easy and language models hard, by size, with exact answers.

Spelling, counting letters, reversing words, comparing decimals, dates, products and simple logic
(llmstages/data/jagged). Answers that could be guessed take turns, so that a constant answer earns
as little as possible; what it earns is a metric of the step.

Words, pairs of numbers, first dates and sets of names of the test occur in no question for
training, also not in those of dialogues.jagged, whatever the seeds. Left out on purpose: words of
the user's own, since the choice of a role follows from the word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.data.jagged import tasks
from llmstages.data.jagged.items import Item


@dataclass(frozen=True)
class JaggedConfig(tasks.QuestionOptions):
    train: int = option(200, "questions of each task and size to practice on", ge=0)
    test: int = option(20, "questions of each task and size for evaluation", ge=0)
    wording: tasks.Wording = option("open", tasks.WORDING_HELP)

    def __post_init__(self) -> None:
        if not self.train and not self.test:
            raise ValueError("train and test are both 0, so there would be no question")


class Jagged:
    """Problems of jagged abilities."""

    Config = JaggedConfig
    smoke: ClassVar[Mapping[str, Any]] = {"train": 6, "test": 3}
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "problems"
    version: ClassVar[str] = "1"

    def validate(self, config: JaggedConfig, step: str) -> None:
        """Refuse tasks and sizes that do not exist."""
        tasks.validate(config, step)

    def estimate(self, config: JaggedConfig, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The number of problems at most, in all and for evaluation."""
        groups = len(config.sizes())
        return {
            "examples": groups * (config.train + config.test),
            "test": groups * config.test,
            "groups": groups,
        }

    def run(self, config: JaggedConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        rows: list[dict[str, Any]] = []
        of_task: dict[str, list[Item]] = {}
        for task, size in config.sizes():
            for role, count in (("train", config.train), ("test", config.test)):
                items = tasks.draw(
                    task, size, count, config, test=role == "test", purpose="problems"
                )
                tasks.report_counts(task, size, items, count, ctx, role)
                rows += [tasks.problem_row(task, size, item, config.wording) for item in items]
                of_task.setdefault(task, []).extend(items)
        tables.save(rows, ctx.out / "data")
        constant = _report_constant(of_task, ctx)
        return {
            "examples": len(rows),
            "test": sum(row["role"] == "test" for row in rows),
            "groups": len(config.sizes()),
            **{f"constant/{task}": share for task, share in constant.items()},
        }


def _report_constant(of_task: Mapping[str, list[Item]], ctx: Context) -> dict[str, float]:
    """Task -> the share of right answers of a model that always does the same."""
    shares = {task: tasks.constant_share(items) for task, items in of_task.items()}
    for task, share in shares.items():
        if share >= tasks.MOST_ALIKE:
            ctx.say(
                f"{ctx.step}: always answering {task} in the same way is right for {share:.0%} of "
                "the questions"
            )
    return shares
