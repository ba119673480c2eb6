"""rl.distill: a policy learns the distributions of a larger model, by TRL's DistillationTrainer.

On-policy distillation (GKD, Agarwal et al. 2024): the policy answers prompts, and each token of its
answers is trained towards what the teacher would say there. So it learns on the texts that it will
write itself, with a whole distribution for each token instead of one reward for each answer.

The divergence of both models is measured before and after, on the teacher's greedy answers to
prompts that are kept from training. Left out on purpose: teachers with another tokenizer, whose
distributions cannot be compared token by token, and tools in rollouts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.plugins.rl import divergence, policy
from llmstages.plugins.rl.curves import ENDS_SHARE
from llmstages.plugins.rl.safe_trainer import stop_at_end_of_turn
from llmstages.plugins.rl.teacher import require_teacher
from llmstages.train.adapters import LoraOptions
from llmstages.train.arguments import Optimization
from llmstages.train.dropout import disable_dropout, refuse_dropout

MEASURED = 64  # prompts at most on which the divergence is measured
# Logged series -> name of the metrics.
CURVES = {
    "loss": "loss",
    "entropy": "entropy",
    "sampled": "sampled",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "clipped",
}


@dataclass(frozen=True)
class DistillConfig(LoraOptions, Optimization):
    learning_rate: float = option(1e-4, "learning rate of AdamW, constant after warm-up", gt=0)
    batch_size: int = option(32, "answers in one update, one to each prompt", ge=1)
    max_steps: int = option(50, "optimizer updates", ge=1)
    warmup_steps: int = option(5, "updates of linear warm-up", ge=0)
    weight_decay: float = option(0.0, "AdamW weight decay", ge=0)
    beta: float = option(
        1.0,
        "what is lowered: the forward KL(teacher || policy) is 0, the reverse KL is 1, and values "
        "between are generalized Jensen-Shannon divergences",
        ge=0,
        le=1,
    )
    lmbda: float = option(
        1.0,
        "share of updates on answers that the policy samples; others take those of the problems",
        ge=0,
        le=1,
    )
    temperature: float = option(
        1.0, "temperature of sampled answers and of both distributions in the loss", gt=0
    )
    max_completion_length: int = option(64, "longest answer in tokens", ge=1)
    limit: int = option(0, "problems used at most, drawn by the seed; 0 = all", ge=0)
    test_fraction: float = option(
        0.1, "share of the prompts that are kept from training, for the divergence", ge=0, lt=1
    )
    log_every: int = option(2, "updates between log lines; logged curves are means over them", ge=1)


class Distill:
    """A policy that says what its teacher would say."""

    Config: ClassVar[type] = DistillConfig
    smoke: ClassVar[Mapping[str, Any]] = {
        "max_steps": 2,
        "batch_size": 4,
        "max_completion_length": 24,
        "log_every": 1,
    }
    inputs: ClassVar[Mapping[str, str]] = {
        "policy": "model",
        "teacher": "model",
        "problems": "problems|dialogues",
    }
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "1"
    trains: ClassVar[bool] = True

    def estimate(
        self, config: DistillConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of sampling all answers and of training on them.

        The teacher, which reads each answer once, counts in memory and not in time.
        """
        from llmstages.cost.generation import PROMPT_TOKENS, Generation, models_of
        from llmstages.cost.model import Training

        models, teachers = models_of(known["policy"]), models_of(known["teacher"])
        if isinstance(models, str):
            return {"no_estimate": models}
        if isinstance(teachers, str):
            return {"no_estimate": teachers}
        answers = config.max_steps * config.batch_size
        because = f"{config.max_steps} updates of {config.batch_size} answers"
        generation = Generation(
            models,
            config.lmbda * answers,
            config.max_completion_length,
            batch=config.micro_batch_size or config.batch_size,
            kept_bytes=4 * teachers[0].parameters(),
            because=because,
        )
        training = Training(
            models[0],
            PROMPT_TOKENS + config.max_completion_length,
            config.batch_size,
            answers,
            config.micro_batch_size,
            bf16=config.bf16,
            adapters=models[0].adapters(config.lora_r) if config.lora_r else 0,
            because=because,
        )
        return {"training": training, "generation": generation}

    def prepare(self, config: DistillConfig, ctx: Context) -> policy.Prompts:
        """The prompts as both models see them, with their checks.

        Raises:
            StageError: the teacher cannot be compared with the policy (teacher.py).
        """
        prompts = policy.prepare(ctx, config.limit, config.max_completion_length, config.seed)
        fitting = [len(row.ids) for row in prompts.rows if len(row.ids) <= prompts.room]
        require_teacher(ctx, max(fitting, default=0) + config.max_completion_length)
        return prompts

    def run(self, config: DistillConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.train import checks
        from llmstages.train.adapters import lora_adapter, merged
        from llmstages.train.trainer import load_model, run_trainer, save_model, write_log

        set_seed(config.seed)
        refuse_dropout(config, ctx, type(self).__name__)
        prompts = self.prepare(config, ctx)
        checks.enforce(prompts.checks, ctx, config.allow_failed_checks)
        tokenizer = prompts.tokenizer
        problems = policy.fitting_problems(prompts, ctx)
        train, test = split(problems, config.test_fraction)
        answers: list[list[int]] = []
        if config.lmbda < 1:
            train, answers = with_answers(train, tokenizer, config.max_completion_length, ctx)
        if len(train) < config.batch_size:
            raise StageError(
                f"{ctx.step}: an update takes batch_size={config.batch_size} problems, and there "
                f"are {len(train)} to train on. Set {ctx.step}.batch_size={max(len(train), 1)} or "
                "lower"
            )
        model, teacher = (load_model(ctx.one(name), ctx) for name in ("policy", "teacher"))
        for one in (model, teacher):
            disable_dropout(one)
            stop_at_end_of_turn(one, tokenizer)
        adapter = lora_adapter(config)
        trainer = self.trainer(config, ctx, model, teacher, tokenizer, train, answers, adapter)
        trainer.use_fast_engine()
        held = HeldOut(config, trainer, test)
        before = held.distance(trainer.model)
        # A policy that has learned all there is has no gradient left.
        run_trainer(trainer, config, ctx, needs_gradient=False)
        log = write_log(trainer, ctx)
        trained = merged(trainer.model, adapter)
        after = held.distance(trained)
        save_model(trained, tokenizer, ctx)
        updates = trainer.state.global_step
        return {
            **changes(before, after),
            "updates": updates,
            "answers": updates * config.batch_size,
            "problems": len(train),
            "test_problems": len(test),
            **curve_ends(log),
        }

    def trainer(
        self,
        config: DistillConfig,
        ctx: Context,
        model: Any,
        teacher: Any,
        tokenizer: Any,
        problems: Sequence[policy.Problem],
        answers: Sequence[Sequence[int]],
        adapter: Any,
    ) -> Any:
        """A trainer that is ready to train; ``answers`` are the given ones, if any are needed."""
        from trl import DistillationConfig  # pyright: ignore[reportPrivateImportUsage]

        from llmstages.plugins.rl.distill_trainer import distill_trainer
        from llmstages.train.arguments import training_arguments

        arguments = training_arguments(
            config, ctx, max_steps=config.max_steps, lr_scheduler_type="constant_with_warmup"
        )
        return distill_trainer()(
            model=model,
            teacher_model=teacher,
            processing_class=tokenizer,
            train_dataset=policy.prompts_dataset(problems),
            peft_config=adapter,
            args=DistillationConfig(
                **arguments,
                beta=config.beta,
                temperature=config.temperature,
                max_completion_length=config.max_completion_length,
            ),
            lmbda=config.lmbda,
            answers=answers,
        )


class HeldOut:
    """Prompts kept from training, with the teacher's greedy answers to them."""

    def __init__(self, config: DistillConfig, trainer: Any, problems: Sequence[policy.Problem]):
        """trainer: where the teacher is, on its device; problems: all that are kept."""
        from llmstages.data.splits import spread
        from llmstages.text import chat_format
        from llmstages.text.generate import generate

        tokenizer = trainer.processing_class
        asked = [problem["prompt"] for problem in spread(problems, MEASURED)]
        self.config = config
        self.teacher = trainer.accelerator.unwrap_model(trainer.teacher_model)
        self.prompts = chat_format.prompt_ids(tokenizer, asked) if asked else []
        self.answers, _ = generate(
            self.teacher, tokenizer, self.prompts, max_new_tokens=config.max_completion_length
        )

    def distance(self, model: Any) -> divergence.Distance | None:
        """How far a model is from the teacher on its answers; None if no prompt is kept."""
        if not self.prompts:
            return None
        beta, temperature = self.config.beta, self.config.temperature
        return divergence.measure(
            model, self.teacher, self.prompts, self.answers, beta, temperature
        )


def changes(
    before: divergence.Distance | None, after: divergence.Distance | None
) -> dict[str, float]:
    """The metrics of both distances; none if they were not measured."""
    if before is None or after is None:
        return {}
    return {
        "test_divergence_before": before.divergence,
        "test_divergence_after": after.divergence,
        "test_agreement_before": before.agreement,
        "test_agreement_after": after.agreement,
    }


def curve_ends(log: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Beginning and end of each curve that was logged.

    Args:
        log: the rows of log.jsonl.
    """
    from llmstages.train.trainer import ends_of

    metrics: dict[str, float] = {}
    for key, name in CURVES.items():
        first, last = ends_of(log, key, ENDS_SHARE)
        if not math.isnan(first):
            metrics |= {f"{name}_first": first, f"{name}_last": last}
    return metrics


def split(
    problems: Sequence[policy.Problem], test_fraction: float
) -> tuple[list[policy.Problem], list[policy.Problem]]:
    """(problems to train on, problems to measure on); no prompt is on both sides."""
    from llmstages.data.splits import choose_tests, comparable

    keys = [comparable(policy.text_of(problem["prompt"])) for problem in problems]
    chosen = choose_tests(keys, test_fraction)
    pairs = list(zip(problems, chosen, strict=True))
    train = [problem for problem, is_test in pairs if not is_test]
    return train, [problem for problem, is_test in pairs if is_test]


def with_answers(
    problems: Sequence[policy.Problem], tokenizer: Any, max_completion_length: int, ctx: Context
) -> tuple[list[policy.Problem], list[list[int]]]:
    """(the problems whose answer can be trained on, the ids of their answers).

    Others, with no answer or one longer than ``max_completion_length``, are counted in a message.
    """
    from llmstages.text.messages import message
    from llmstages.text.render import render_answers
    from llmstages.train.scoring import answer_span

    answered = [problem for problem in problems if problem["answer"]]
    dialogues = [
        [*problem["prompt"], message("assistant", problem["answer"])] for problem in answered
    ]
    used, answers = [], []
    for problem, row in zip(answered, render_answers(tokenizer, dialogues), strict=True):
        span = answer_span(row, tokenizer)
        ids = row.ids[span] if span else []
        if 0 < len(ids) <= max_completion_length:
            used.append(problem)
            answers.append(ids)
    dropped = len(problems) - len(used)
    if dropped:
        ctx.say(
            f"{ctx.step}: {dropped} of {len(problems)} problems dropped, their given answers are "
            f"empty or longer than max_completion_length={max_completion_length} tokens"
        )
    return used, answers
