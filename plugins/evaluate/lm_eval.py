"""evaluate.lm_eval: tasks of EleutherAI's lm-evaluation-harness, for every model of the run.

The harness (Gao et al. 2021, https://github.com/EleutherAI/lm-evaluation-harness) owns the tasks:
data, wording, few-shot examples, filters and metrics. The models are loaded, rendered and asked as
in every other evaluation (lm_eval_model.py), so a model of the run gets the tokens that it was
trained on. The package is an extra: ``pip install "llmstages[lm_eval]"``.

All tasks and their data are loaded before the first model. ``scores.json`` has the harness's own
metrics under their own names, with n and, where a metric is a share of right answers, its interval;
``right`` is the first such metric of a task. ``answers.jsonl`` has every sample. Left out on
purpose: tasks that run what a model writes as code, tasks with images or sound, the harness's
bootstrap errors, its caches of requests and answers, and several processes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option
from llmstages.plugins.evaluate import lm_eval_tasks
from llmstages.plugins.evaluate.results import Results
from llmstages.train.inference import dtype_option

NEVER_CHAT = "pretrain."  # stages behind whose models nobody has taught chat yet


@dataclass(frozen=True)
class LMEvalConfig:
    tasks: list[str] = option(
        help="tasks, groups or tags of the harness, or of include_path, by name", factory=list
    )
    include_path: str = option(
        "",
        "a task as a YAML file, or a folder of them; data_files in it may be relative to it, and "
        "what lies in the folder is part of the fingerprint. Without tasks, all of it is asked",
        file=True,
    )
    num_fewshot: int = option(
        -1, "solved examples before each question; -1 = as each task says", ge=-1
    )
    chat_template: str = option(
        "auto",
        "ask through the model's chat template; auto: where it has one, but not models that come "
        "from pretraining",
        choices=("auto", "on", "off"),
    )
    system_prompt: str = option("", "system turn, or text before each prompt without chat template")
    limit: int = option(0, "questions of each task at most, the first ones; 0 = all", ge=0)
    max_length: int = option(0, "longest sequence in tokens; 0 = the context of the model", ge=0)
    max_new_tokens: int = option(
        0, "longest reply in tokens; 0 = as each task says (256 where it does not)", ge=0
    )
    batch: int = option(
        64, "sequences computed together at most, fewer where memory holds no more", ge=1
    )
    seed: int = option(
        1234,
        "draws few-shot examples and sampled answers; 1234 is the harness's own",
        ge=0,
        lt=2**32,
    )
    dtype: str = dtype_option()


class LMEval:
    """Tasks of lm-evaluation-harness, with its own metrics."""

    Config = LMEvalConfig
    smoke: ClassVar[Mapping[str, Any]] = {"limit": 2, "max_new_tokens": 8}
    inputs: ClassVar[Mapping[str, str]] = {"models": "model*"}
    output: ClassVar[str] = "scores"
    version: ClassVar[str] = "1"

    def validate(self, config: LMEvalConfig, step: str) -> None:
        """Refuse a missing package, tasks that nobody knows, and an evaluation of nothing."""
        if importlib.util.find_spec("lm_eval") is None:
            raise StageError(f'{step} needs lm-eval: pip install "llmstages[lm_eval]"')
        if not config.tasks and not config.include_path:
            raise StageError(
                f"{step}.tasks is empty, so nothing would be asked; try {step}.tasks=[arc_easy], "
                f"or {step}.include_path=FOLDER with tasks of your own"
            )
        if config.include_path and not Path(config.include_path).expanduser().exists():
            raise StageError(f"{step}.include_path: there is no {config.include_path}")
        lm_eval_tasks.require_known(config.tasks, config.include_path, step)

    def estimate(
        self, config: LMEvalConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Nothing: how many questions a task has, and how many are written, is in its data."""
        return {"no_estimate": "the number of questions is known once the tasks are loaded"}

    def run(self, config: LMEvalConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.plugins.evaluate.lm_eval_model import ask
        from llmstages.plugins.evaluate.lm_eval_scores import read_results
        from llmstages.train.inference import load_for_inference
        from llmstages.train.trainer import load_tokenizer

        models = ctx.many("models")
        if not models:
            raise StageError(
                f"{ctx.step} has no model to ask; wire steps.{ctx.step}.models=[STEP, ...]"
            )
        tasks = lm_eval_tasks.load(config, ctx)
        results = Results(ctx)
        for artifact in models:
            tokenizer = load_tokenizer(artifact.path)
            chat = uses_chat(artifact, tokenizer, config, ctx)
            model = load_for_inference(artifact, ctx, config.dtype)
            answered = ask(model, tokenizer, tasks, artifact.name, config, ctx, chat=chat)
            results.add(artifact.name, "lm_eval", *read_results(answered, tasks, ctx), {})
        tables.write_json(ctx.out / "scores.json", results.scores)
        tables.write_lines(ctx.out / "answers.jsonl", results.answers)
        questions = len(results.answers) // len(models)
        return {"questions": questions, "tasks": len(tasks["tasks"]), **results.metrics}


def uses_chat(artifact: Artifact, tokenizer: Any, config: LMEvalConfig, ctx: Context) -> bool:
    """Whether a model is asked through its chat template; a line says so.

    Raises:
        StageError: it should be, and has none.
    """
    from llmstages.text.templates import template_of

    has_template = bool(template_of(tokenizer))
    if config.chat_template == "on" and not has_template:
        raise StageError(
            f"{ctx.step}: {artifact.name} has no chat template, so {ctx.step}.chat_template=on "
            "cannot be; use auto or off"
        )
    stage = str(artifact.record.get("stage", ""))
    chat = config.chat_template == "on"
    if config.chat_template == "auto":
        chat = has_template and not stage.startswith(NEVER_CHAT)
    how = "through its chat template" if chat else "without chat template"
    ctx.say(f"{ctx.step}: {artifact.name} is asked {how} ({config.chat_template})")
    return chat
