"""evaluate.tasks: the same questions for every model of the chain, side by side.

The questions are a problems artifact. Evaluators decide how they are asked and counted; every
evaluator gets all questions. ``models_per_task`` names the models that a task is put to, where
asking all of them would mean nothing. The tools are those of a tools artifact, and calls are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option
from llmstages.plugins.evaluate.before_after import compare
from llmstages.plugins.evaluate.results import Results, load_questions, report_unknown_models
from llmstages.train.inference import dtype_option


@dataclass(frozen=True)
class TasksConfig:
    evaluators: dict[str, Any] = option(
        help="how questions are asked and counted: name -> evaluator and its settings",
        factory=dict,
        renamed_from="tasks",
    )
    models_per_task: dict[str, list[str]] = option(
        help="task -> steps whose models are asked; other tasks are put to all models",
        factory=dict,
        renamed_from="only",
    )
    with_tools: list[str] = option(
        help="steps whose models may call the tools; empty = all", factory=list
    )
    limit: int = option(
        0, "questions of each task and group at most, drawn by the seed; 0 = all", ge=0
    )
    compare_with_first: bool = option(
        False,
        "also score by what the first of the models did: task -> groups `right before`, `not right "
        "before` and `all questions`, for evaluators that count refusals",
    )
    seed: int = option(0, "seed of sampled answers", ge=0, lt=2**32)
    dtype: str = dtype_option()


class Tasks:
    """Ask every model, count, compare."""

    Config = TasksConfig
    inputs: ClassVar[Mapping[str, str]] = {
        "models": "model*",
        "questions": "problems",
        "tools": "dialogues?",
    }
    output: ClassVar[str] = "scores"
    version: ClassVar[str] = "4"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"evaluators": ("answers",)}

    def estimate(
        self, config: TasksConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of all replies, if every model is asked every question by each evaluator.

        The length of replies is that of the evaluators' option ``max_new_tokens``.
        """
        from llmstages.cost.generation import Generation, models_of, row_count

        models = models_of(known["models"])
        if isinstance(models, str):
            return {"no_estimate": models}
        source = known["questions"][0]
        number = source.get("test") or row_count(source)
        if number is None:
            return {
                "no_estimate": f"the number of questions is known once {source['name']} is made"
            }
        if config.limit and source.get("groups"):
            number = min(number, config.limit * source["groups"])
        lengths = [spec.get("max_new_tokens", 0) for spec in config.evaluators.values()]
        batches = [spec.get("batch", 0) for spec in config.evaluators.values()]
        if not any(lengths):
            return {}
        generation = Generation(
            models,
            number * sum(map(bool, lengths)),
            max(lengths),
            max(batches),
            because=f"{number:,.0f} questions, {len(models)} models",
        )
        return {"questions": number, "generation": generation}

    def run(self, config: TasksConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.core.registry import load_component
        from llmstages.data import tables
        from llmstages.text import generate
        from llmstages.train.inference import load_for_inference
        from llmstages.train.trainer import load_tokenizer

        models = ctx.many("models")
        named = set(config.with_tools)
        named.update(*config.models_per_task.values())
        report_unknown_models("models_per_task or with_tools", named, ctx)
        questions = load_questions(ctx.one("questions"), config.limit, config.seed)
        require_questions(questions, models, config, ctx)
        evaluators = {
            name: load_component("evaluators", spec) for name, spec in config.evaluators.items()
        }
        tools_artifact = ctx.maybe("tools")
        tools = generate.open_tools(tools_artifact.path) if tools_artifact else {}
        results = Results(ctx)
        first: dict[str, list[dict[str, Any]]] = {}  # evaluator -> answers of the first model
        for artifact in models:
            set_seed(config.seed)
            model = load_for_inference(artifact, ctx, config.dtype)
            tokenizer = load_tokenizer(artifact.path)
            asked = [
                question
                for question in questions
                if artifact.name in config.models_per_task.get(question["task"], [artifact.name])
            ]
            may_call = not config.with_tools or artifact.name in config.with_tools
            total = len(asked) * len(evaluators)
            with ctx.progress(f"{ctx.step} {artifact.name}", total) as advance:
                for name, evaluator in evaluators.items():
                    scores, answers, facts = evaluator.score(
                        model, tokenizer, asked, tools if may_call else None, advance
                    )
                    results.add(artifact.name, name, scores, answers, facts)
                    if config.compare_with_first:
                        before = first.setdefault(name, answers)
                        results.add(artifact.name, name, compare(answers, before), [], {})
        tables.write_json(ctx.out / "scores.json", results.scores)
        tables.write_lines(ctx.out / "answers.jsonl", results.answers)
        return {"questions": len(questions), **results.metrics}


def require_questions(
    questions: Sequence[Mapping[str, Any]],
    models: Sequence[Artifact],
    config: TasksConfig,
    ctx: Context,
) -> None:
    """Refuse an evaluation that would measure nothing, before a model is loaded.

    Raises:
        StageError: there are no questions, no models, or no evaluator.
    """
    source = ctx.one("questions").name
    if not models:
        raise StageError(
            f"{ctx.step} has no model to ask; wire steps.{ctx.step}.models=[STEP, ...]"
        )
    if not config.evaluators:
        raise StageError(
            f"{ctx.step}.evaluators is empty, so nothing would be counted; add one, for example "
            f"+evaluators@{ctx.step}.evaluators.answers=answers"
        )
    if not questions:
        raise StageError(
            f"{ctx.step}: {source} holds no question to ask: every row has the role train. Keep "
            f"some of them for evaluation, for example {source}.test_fraction=0.2"
        )
