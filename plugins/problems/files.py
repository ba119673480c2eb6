"""Problems with answers that can be checked, from local files."""

from __future__ import annotations

import dataclasses as dc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmstages.core.digest import sha256
from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data import planned_tokens
from llmstages.data.formats import problem
from llmstages.data.readers import TABLES, find
from llmstages.data.readers.examples import Examples, convert, from_files, write
from llmstages.data.splits import comparable
from llmstages.text.grading import count_graders, written_spec

FEW = 5  # problems, below which equal answers mean nothing
MOST_ALIKE = 0.9  # share of problems with the same answer
PLACES = 1000  # into which questions are spread to draw those of the test


class Files:
    """Questions with answers from JSON(L), Parquet or CSV: GSM8K, MATH or rows of both fields.

    The reasoning of a worked answer stays in ``solution``.
    """

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(
            help="file, folder or glob (in quotes): json, jsonl, parquet, csv; also .gz", file=True
        )
        task: str = option(
            "", "task name for all rows; empty: the row's own, or gsm8k or questions"
        )
        limit: int = option(0, "read at most this many problems; 0 reads all", ge=0)
        test_fraction: float = option(
            0.1,
            "share of the problems kept from practice for evaluation (role = test)",
            ge=0,
            le=1,
            renamed_from="test_share",
        )
        max_characters: int = option(
            0, "drop problems with longer questions; unit: characters; 0 keeps all", ge=0
        )
        graders: dict[str, Any] = option(
            help="one grader that decides which replies are right; none: the row's own (column "
            "`grader`), else what fits the answer (number, math, choice, words)",
            factory=dict,
        )

    inputs: dict[str, str] = {}
    output = "problems"
    version = "5"
    components: dict[str, tuple[str, ...]] = {"graders": ()}

    def validate(self, config: Config, step: str) -> None:
        """Refuse two graders: which of them would decide?"""
        if len(config.graders) > 1:
            names = ", ".join(config.graders)
            raise StageError(
                f"{step}.graders has {names}, but one grader decides: leave one, or write a grader "
                "that asks several (docs/plugins.md)"
            )

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The number of problems, in all and for evaluation."""
        facts = planned_tokens.facts_of_files(
            config.path, lambda rows, ctx: self._convert(rows, config, ctx)
        )
        if not facts:
            return {}
        number = facts["examples"]
        return {
            "examples": number,
            "test": round(number * config.test_fraction),
            "groups": _count_groups(facts["sample"]),
        }

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        rows = from_files(find(config.path, ctx.step, TABLES))
        examples = self._convert(rows, config, ctx)
        graders = count_graders(examples.kept)
        if examples.kept:
            _describe(examples.kept, graders, ctx)
        counted = {f"graders/{name}": count for name, count in graders.items()}
        for row in examples.kept:
            is_test = _place_of(row) < PLACES * config.test_fraction
            row["role"] = "test" if is_test else "train"
        if config.test_fraction and len(examples.kept) > 1:
            _keep_one(examples.kept, config, ctx)
        metrics = write(examples, ctx, f"{ctx.step}.path={config.path}")
        tests = sum(row["role"] == "test" for row in examples.kept)
        groups = _count_groups(examples.kept)
        return {**metrics, "test": tests, "groups": groups, **counted}

    def _convert(self, rows: Iterable[Any], config: Config, ctx: Context) -> Examples:
        grader = next((written_spec(spec) for spec in config.graders.values()), "")

        def converter(row: Mapping[str, Any], left_out: Counter[str]) -> dict[str, Any]:
            return problem(row, config.task, grader)

        return convert(
            rows, converter, ctx, limit=config.limit, max_characters=config.max_characters
        )


def _describe(rows: Sequence[Mapping[str, Any]], graders: Mapping[str, int], ctx: Context) -> None:
    """Say what grades the replies, and if one answer would be right nearly always."""
    listed = ", ".join(f"{name} {count}" for name, count in graders.items())
    ctx.say(f"{ctx.step}: replies are graded by {listed}")
    answer, count = Counter(str(row["answer"]) for row in rows).most_common(1)[0]
    if len(rows) >= FEW and count >= MOST_ALIKE * len(rows):
        ctx.say(
            f"{ctx.step}: {answer!r} is the answer to {count} of {len(rows)} problems, so a model "
            "that always says it is right; is it a placeholder of hidden answers?"
        )


def _count_groups(rows: Sequence[Mapping[str, Any]]) -> int:
    """Groups of questions that are evaluated apart."""
    return len({(row.get("task"), row.get("group")) for row in rows})


def _keep_one(rows: Sequence[dict[str, Any]], config: Files.Config, ctx: Context) -> None:
    """Mark one row as test if the share of so few rows came to none, and say so."""
    if any(row["role"] == "test" for row in rows):
        return
    first = min(rows, key=_place_of)
    first["role"] = "test"
    ctx.say(
        f"{ctx.step}: test_fraction={config.test_fraction:g} of {len(rows)} problems is none, so "
        "one is kept for evaluation; raise it to measure anything"
    )


def _place_of(row: Mapping[str, Any]) -> int:
    """A number below PLACES that follows from the question.

    So a question has the same role in every run and every mixture of files.
    """
    question = comparable(row["prompt"][-1]["content"])
    return int(sha256(question), 16) % PLACES
