"""evaluate.tasks: the same questions for every model of the chain, side by side.

Questions are a problems artifact; a task decides how they are asked and counted. ``models_per_task`` says which models a kind of
question is put to, where asking all of them would tell nothing. Tools are those of a tools artifact, run for real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Artifact, Context, option


@dataclass(frozen=True)
class TasksConfig:
    evaluators: dict[str, Any] = option(
        help="how questions are asked and counted: name -> task and its settings",
        factory=dict,
        renamed_from="tasks",
    )
    models_per_task: dict[str, list[str]] = option(
        help="task of a question -> steps whose models are asked; others are asked of all",
        factory=dict,
        renamed_from="only",
    )
    with_tools: list[str] = option(
        help="steps whose models may call the tools; empty = all", factory=list
    )
    limit: int = option(0, "questions of each task and group at most; 0 = all")
    seed: int = option(0, "seed of sampled answers")


class Tasks:
    """Ask, count, compare."""

    Config = TasksConfig
    inputs: ClassVar[Mapping[str, str]] = {
        "models": "model*",
        "questions": "problems",
        "tools": "dialogues?",
    }
    output: ClassVar[str] = "scores"
    version: ClassVar[str] = "1"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"evaluators": ("answers",)}

    def run(self, config: TasksConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.core.registry import load_component
        from llmstages.data import tables
        from llmstages.text import generate
        from llmstages.train.trainer import compute_device, load_model, load_tokenizer

        here = [artifact.name for artifact in ctx.many("models")]
        for name in sorted(
            {*config.with_tools, *(n for names in config.models_per_task.values() for n in names)}
            - {*here}
        ):
            ctx.say(
                f"{ctx.step}: {name!r} is named in models_per_task or with_tools, but no such model is evaluated here"
            )
        questions = self.questions(config, ctx.one("questions"))
        scorers = [load_component("evaluators", spec) for spec in config.evaluators.values()]
        taught = ctx.maybe("tools")
        tools = generate.open_tools(taught.path) if taught else {}
        scores: dict[str, Any] = {}
        answers: list[dict[str, Any]] = []
        metrics: dict[str, float] = {"questions": len(questions)}
        for artifact in ctx.many("models"):
            set_seed(config.seed)
            model, tokenizer = load_model(artifact, ctx), load_tokenizer(artifact.path)
            model.to(compute_device())
            mine = [
                q
                for q in questions
                if artifact.name in config.models_per_task.get(q["task"], [artifact.name])
            ]
            allowed = tools if not config.with_tools or artifact.name in config.with_tools else None
            with ctx.progress(f"{ctx.step} {artifact.name}", len(mine)) as advance:
                for scorer in scorers:
                    found, said, facts = scorer.score(model, tokenizer, mine, allowed, advance)
                    answers += [{"model": artifact.name, **one} for one in said]
                    metrics |= {f"{artifact.name}/{name}": value for name, value in facts.items()}
                    for task, groups in found.items():
                        for group, values in groups.items():
                            scores.setdefault(task, {}).setdefault(group, {})[artifact.name] = (
                                values
                            )
                            metrics |= {
                                f"{task}/{group}/{artifact.name}/{name}": value
                                for name, value in values.items()
                            }
        tables.write_json(ctx.out / "scores.json", scores)
        tables.write_lines(ctx.out / "answers.jsonl", answers)
        return metrics

    def questions(self, config: TasksConfig, artifact: Artifact) -> list[dict[str, Any]]:
        """The questions (never those marked role=train), with the columns a plain problems artifact may lack filled in."""
        from llmstages.data import tables

        out, seen = [], {}
        for row in tables.load(artifact.path / "data"):
            if row.get("role") == "train":
                continue
            key = (row.get("task") or "problems", row.get("group") or "all")
            seen[key] = seen.get(key, 0) + 1
            if not config.limit or seen[key] <= config.limit:
                out.append(
                    {
                        "meta": "{}",
                        "role": "test",
                        "style": "chat",
                        **row,
                        "task": key[0],
                        "group": key[1],
                    }
                )
        return out
