"""evaluate.jagged: a profile of what each model can do, from spelling to products, by size.

Every model gets the same questions (llmstages/data/jagged, or a problems artifact that is wired),
and where a tools artifact is wired, once without and once with the tools: what tools repair is the
difference. ``scores.json`` has right answers by task and size with their intervals, the number of
questions, and what a constant answer would earn; ``profile.json`` has the same for each task over
all its sizes, which the report shows as one chart.

The questions are those for tests, so no dialogue of dialogues.jagged gave their answers away. Left
out on purpose: an interval that knows that the sizes are strata; the one of Wilson is wider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.intervals import wilson
from llmstages.data.jagged import tasks
from llmstages.plugins.evaluate.answers import Answers, AnswersConfig
from llmstages.plugins.evaluate.results import Results, load_questions, report_unknown_models
from llmstages.text.tool_runs import Tools
from llmstages.train.inference import dtype_option

WITH_TOOLS = " with tools"  # behind the name of a model


@dataclass(frozen=True)
class JaggedConfig(tasks.QuestionOptions):
    count: int = option(20, "questions of each task and size (at most, of wired ones)", ge=1)
    wording: tasks.Wording = option("open", tasks.WORDING_HELP)
    with_tools: list[str] = option(
        help="steps whose models are also asked with the tools; empty = all", factory=list
    )
    max_new_tokens: int = option(160, "longest reply in tokens", ge=1)
    batch: int = option(64, "prompts generated together at most", ge=1)
    dtype: str = dtype_option()


class Jagged:
    """Right answers to jagged questions, without and with tools."""

    Config = JaggedConfig
    smoke: ClassVar[Mapping[str, Any]] = {"count": 1, "max_new_tokens": 8}
    inputs: ClassVar[Mapping[str, str]] = {
        "models": "model*",
        "questions": "problems?",
        "tools": "dialogues?",
    }
    output: ClassVar[str] = "scores"
    version: ClassVar[str] = "1"

    def validate(self, config: JaggedConfig, step: str) -> None:
        """Refuse tasks and sizes that do not exist."""
        tasks.validate(config, step)

    def estimate(
        self, config: JaggedConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of all replies, at their full length."""
        from llmstages.cost.generation import Generation, models_of, row_count

        models = models_of(known["models"])
        if isinstance(models, str):
            return {"no_estimate": models}
        number: float = config.count * len(config.sizes())
        wired = known.get("questions")
        if wired:
            groups, rows = wired[0].get("groups"), wired[0].get("test") or row_count(wired[0])
            if not groups and rows is None:
                return {"no_estimate": f"questions are known once {wired[0]['name']} is made"}
            number = config.count * groups if groups else rows or 0
            number = min(number, rows or number)
        times = 2 if known.get("tools") else 1
        generation = Generation(
            models,
            number * times,
            config.max_new_tokens,
            config.batch,
            because=f"{number:,.0f} questions, {len(models)} models",
        )
        return {"questions": number, "generation": generation}

    def run(self, config: JaggedConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import tables
        from llmstages.text import generate
        from llmstages.train.inference import load_for_inference
        from llmstages.train.trainer import load_tokenizer

        models = ctx.many("models")
        if not models:
            raise StageError(
                f"{ctx.step} has no model to ask; wire steps.{ctx.step}.models=[STEP, ...]"
            )
        report_unknown_models("with_tools", config.with_tools, ctx)
        asked = questions(config, ctx)
        artifact = ctx.maybe("tools")
        tools = generate.open_tools(artifact.path) if artifact else {}
        evaluator = Answers(AnswersConfig(max_new_tokens=config.max_new_tokens, batch=config.batch))
        results = Results(ctx)
        for source in models:
            model = load_for_inference(source, ctx, config.dtype)
            tokenizer = load_tokenizer(source.path)
            ways: dict[str, Tools | None] = {source.name: None}
            if tools and (not config.with_tools or source.name in config.with_tools):
                ways[source.name + WITH_TOOLS] = tools
            for name, may_call in ways.items():
                set_seed(config.seed)
                with ctx.progress(f"{ctx.step} {name}", len(asked)) as advance:
                    scored = evaluator.score(model, tokenizer, asked, may_call, advance)
                results.add(name, "answers", *scored)
        tables.write_json(ctx.out / "scores.json", results.scores)
        tables.write_json(ctx.out / "profile.json", profile(results.scores))
        tables.write_lines(ctx.out / "answers.jsonl", results.answers)
        return {"questions": len(asked), **results.metrics}


def questions(config: JaggedConfig, ctx: Context) -> list[dict[str, Any]]:
    """The questions that all models get.

    Raises:
        StageError: there is none.
    """
    wired = ctx.maybe("questions")
    if wired:
        ctx.say(
            f"{ctx.step}: the questions are those of {wired.name}, at most {config.count} of each "
            "task and group; tasks, words, alphabet, wordings and wording have no effect"
        )
        rows = load_questions(wired, config.count, config.seed)
        if not rows:
            raise StageError(f"{ctx.step}: {wired.name} holds no question of the role test")
        return rows
    rows = []
    for task, size in config.sizes():
        items = tasks.draw(task, size, config.count, config, test=True, purpose="evaluate")
        tasks.report_counts(task, size, items, config.count, ctx, "test")
        rows += [tasks.problem_row(task, size, item, config.wording) for item in items]
    return rows


def profile(
    scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> model -> right, its interval (low, high), n and constant, over all groups of a task.

    ``constant`` is what a model earns that knows the best constant answer of each group.
    """
    pooled: dict[str, dict[str, dict[str, float]]] = {}
    for task, groups in scores.items():
        for by_model in groups.values():
            for model, values in by_model.items():
                sums = pooled.setdefault(task, {}).setdefault(
                    model, {"right": 0.0, "constant": 0.0, "n": 0.0}
                )
                sums["right"] += values["right"] * values["n"]
                sums["constant"] += values["commonest"] * values["n"]
                sums["n"] += values["n"]
    for by_model in pooled.values():
        for sums in by_model.values():
            number, right = sums["n"], round(sums["right"])
            low, high = wilson(right, int(number))
            sums |= {
                "right": right / number,
                "low": low,
                "high": high,
                "constant": sums["constant"] / number,
            }
    return pooled
