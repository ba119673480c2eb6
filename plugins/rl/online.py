"""What the variants share that train on answers while they sample them: GRPO, RLOO and PPO.

Rewards are plugins: a verifier, a reward model, or both. A reward of weight 0 is only logged, which
is how a proxy and the truth are watched side by side.

A variant inherits ``Online`` or another variant and overrides ``trainer_arguments`` (all arguments
of its config class of TRL) or ``trainer_class``; examples/plugins/llmstages-extras has one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data import tables
from llmstages.plugins.rl import alarms, held_out, policy, signals, truncation
from llmstages.plugins.rl.curves import curve_metrics, warnings_of
from llmstages.plugins.rl.safe_trainer import stop_at_end_of_turn
from llmstages.plugins.rl.tool_rollouts import rollout_arguments
from llmstages.text.environments import has_environment
from llmstages.train.adapters import LoraOptions
from llmstages.train.arguments import Optimization
from llmstages.train.dropout import disable_dropout, refuse_dropout

# Logged series -> name of the metrics; each reward and each variant adds its own.
CURVES = {
    "reward": "reward",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "clipped",
    "kl": "kl",
    "tools/calls": "tool_calls",
    "tools/failures": "tool_failures",
    "environment/turns": "environment_turns",
    "environment/failures": "environment_failures",
}
HEADLINE = ("reward_first", "reward_last", "clipped_last")
ALARMS = "alarms.jsonl"
ROLLOUTS = "rollouts.jsonl"
ENGINES = ("hf", "trl", "vllm")


@dataclass(frozen=True)
class OnlineConfig(LoraOptions, Optimization):
    """Options of every variant that samples while it trains."""

    learning_rate: float = option(5e-5, "learning rate of AdamW, constant after warm-up")
    batch_size: int = option(64, "answers in one update: prompts times num_generations")
    num_generations: int = option(
        8, "answers sampled for each prompt (the group)", ge=2, renamed_from="samples"
    )
    max_steps: int = option(24, "optimizer updates", ge=1, renamed_from="updates")
    warmup_steps: int = option(5, "updates of linear warm-up")
    weight_decay: float = option(0.0, "AdamW weight decay")
    beta: float = option(
        0.02,
        "weight of the KL penalty that holds the policy to where it started",
        ge=0,
        renamed_from="kl",
    )
    epsilon: float = option(
        0.2, "an update gains nothing from changing a probability by more than this share", gt=0
    )
    truncated: str = option(
        "penalty",
        "answers that were cut before they ended: paid less than the worst that ended, masked out "
        "of the loss, or paid as if they had ended (none)",
        choices=truncation.POLICIES,
    )
    truncation_penalty: float = option(
        1.0, "how much less than the worst a truncated answer is paid", ge=0
    )
    temperature: float = option(1.0, "temperature of the sampled answers", gt=0)
    max_completion_length: int = option(
        64, "longest answer in tokens", ge=1, renamed_from="max_answer"
    )
    limit: int = option(0, "problems used at most, drawn by the seed; 0 = all", ge=0)
    rewards: dict[str, Any] = option(
        help="what is rewarded: name -> reward and its weight", factory=dict
    )
    max_tool_calls: int = option(
        2, "calls of one answer at most, where tools are wired in (steps.rl.tools=tools)", ge=1
    )
    max_tool_seconds: float = option(
        0.0, "seconds that all calls of one answer may take; 0 = any number", ge=0
    )
    engine: str = option(
        "hf",
        "what samples and scores: our loop on transformers, which computes a shared prompt once "
        "(hf), transformers' generate() as TRL calls it (trl), or vLLM on the GPUs of training "
        "(vllm)",
        choices=ENGINES,
    )
    alarm: str = option(
        "warn",
        "where the policy seems to game its reward: say so, or stop and save the best one before",
        choices=alarms.CHOICES,
    )
    held_out: int = option(
        0, "problems kept from practice, on which all rewards are measured as well", ge=0
    )
    held_out_steps: int = option(
        10, "updates between these measurements, a multiple of log_every", ge=1
    )
    log_every: int = option(2, "updates between log lines; logged curves are means over them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.num_generations:
            raise ValueError(
                f"batch_size={self.batch_size} must be a multiple of "
                f"num_generations={self.num_generations}, since groups are never split"
            )
        if self.held_out and self.held_out_steps % self.log_every:
            raise ValueError(
                f"held_out_steps={self.held_out_steps} must be a multiple of log_every="
                f"{self.log_every}, so that each measurement stands in the row of its update"
            )


class Online:
    """A policy that is rewarded for its answers; the base of variants, none by itself."""

    Config: ClassVar[type] = OnlineConfig
    curves: ClassVar[Mapping[str, str]] = CURVES
    smoke: ClassVar[Mapping[str, Any]] = {
        "max_steps": 2,
        "batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 24,
        "log_every": 1,
    }
    inputs: ClassVar[Mapping[str, str]] = {
        "policy": "model",
        "problems": "problems|dialogues",
        "reward": "reward_model?",
        "tools": "dialogues?",  # a tools artifact, whose tools the policy may call
    }
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "6"
    trains: ClassVar[bool] = True
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"rewards": ("exact_answer",)}

    def estimate(
        self, config: Any, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of sampling all answers and of training on them."""
        from llmstages.cost.generation import PROMPT_TOKENS, Generation, models_of
        from llmstages.cost.model import Training

        models = models_of(known["policy"])
        if isinstance(models, str):
            return {"no_estimate": models}
        model = models[0]
        answers = config.max_steps * config.batch_size
        because = f"{config.max_steps} updates of {config.batch_size} answers"
        has_reference = config.beta > 0 and not config.lora_r
        generation = Generation(
            models,
            answers,
            config.max_completion_length,
            batch=config.micro_batch_size or config.batch_size,
            kept_bytes=4 * model.parameters() if has_reference else 0,
            because=because,
        )
        # A prompt is computed once for its group, or once for each answer.
        sharing = config.num_generations if config.engine == "hf" else 1
        training = Training(
            model,
            PROMPT_TOKENS // sharing + config.max_completion_length,
            config.batch_size,
            answers,
            config.micro_batch_size,
            bf16=config.bf16,
            adapters=model.adapters(config.lora_r) if config.lora_r else 0,
            because=because,
        )
        return {"training": training, "generation": generation}

    def prepare(self, config: Any, ctx: Context) -> policy.Prompts:
        """The prompts as the policy sees them, with their checks."""
        return policy.prepare(ctx, config.limit, config.max_completion_length, config.seed)

    def trainer_arguments(
        self, config: Any, ctx: Context, tokenizer: Any, rewards: Mapping[str, Any]
    ) -> dict[str, Any]:
        """All keyword arguments of the config class of TRL; a variant adds to them or changes them.

        Args:
            config: the options of the stage.
            ctx: where the step runs.
            tokenizer: the tokenizer of the policy.
            rewards: name -> reward, as opened.
        """
        from llmstages.train.arguments import training_arguments

        arguments = training_arguments(
            config, ctx, max_steps=config.max_steps, lr_scheduler_type="constant_with_warmup"
        )
        return {
            **arguments,
            "num_generations": config.num_generations,
            "max_completion_length": config.max_completion_length,
            "temperature": config.temperature,
            "beta": config.beta,
            "epsilon": config.epsilon,
            "mask_truncated_completions": config.truncated == "mask",
            "disable_dropout": True,  # of the reference, too
            "use_vllm": config.engine == "vllm",
            "reward_weights": [
                *(float(reward.config.weight) for reward in rewards.values()),
                1.0,  # of the penalty for truncated answers
            ],
        }

    def trainer_class(self) -> type:
        """The trainer; a variant with a loss of its own returns a subclass of it."""
        raise NotImplementedError

    def built_arguments(self, config: Any, arguments: Mapping[str, Any]) -> Any:
        """The config of TRL made of ``trainer_arguments``."""
        raise NotImplementedError

    def trainer_extras(self, config: Any, model: Any) -> dict[str, Any]:
        """Keyword arguments of the trainer that this variant adds.

        Args:
            config: the options of the stage.
            model: the policy before adapters are added to it.
        """
        return {}

    def rollouts(
        self, config: Any, ctx: Context, tokenizer: Any, problems: Sequence[policy.Problem]
    ) -> dict[str, Any]:
        """The arguments of the trainer for tools and environments; {} where there are none."""
        if "tools" not in self.inputs and any(map(has_environment, problems)):
            raise StageError(
                f"{ctx.step}: {ctx.one('problems').name} holds environments, and "
                f"{type(self).__name__} samples single answers; take {ctx.step}=grpo, ppo or rloo"
            )
        return rollout_arguments(config, ctx, tokenizer, problems)

    def ready_trainer(
        self,
        config: Any,
        ctx: Context,
        tokenizer: Any,
        problems: Sequence[policy.Problem],
        rewards: Mapping[str, Any],
        adapter: Any,
    ) -> Any:
        """The trainer of TRL with the policy, ready to train.

        Args:
            config: the options of the stage.
            ctx: where the step runs.
            tokenizer: the tokenizer of the policy.
            problems: what is practiced on.
            rewards: name -> reward, as opened.
            adapter: a peft config; None trains all weights.
        """
        from llmstages.train.trainer import load_model

        model = load_model(ctx.one("policy"), ctx)
        # Its noise would be taken for a difference between the policy and its reference.
        disable_dropout(model)
        rollouts = self.rollouts(config, ctx, tokenizer, problems)
        stop_at_end_of_turn(model, tokenizer, calls=bool(rollouts))
        arguments = self.trainer_arguments(config, ctx, tokenizer, rewards)
        trainer = self.trainer_class()(
            model=model,
            processing_class=tokenizer,
            train_dataset=policy.prompts_dataset(problems),
            reward_funcs=[
                *policy.reward_functions(rewards, tokenizer, problems),
                truncation.no_reward,
            ],
            peft_config=adapter,
            args=self.built_arguments(config, arguments),
            **self.trainer_extras(config, model),
            **rollouts,
        )
        if config.engine == "hf":
            trainer.use_fast_engine()
        if config.truncated == "penalty":
            trainer.truncation_penalty = config.truncation_penalty
        return trainer

    def run(self, config: Any, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.train import checks
        from llmstages.train.adapters import lora_adapter, merged
        from llmstages.train.trainer import run_trainer, save_model, write_log

        set_seed(config.seed)
        require_engine(config.engine, ctx)
        refuse_dropout(config, ctx, type(self).__name__)
        prompts = self.prepare(config, ctx)
        checks.enforce(prompts.checks, ctx, config.allow_failed_checks)
        fitting = policy.fitting_problems(prompts, ctx)
        problems, kept = held_out.split(fitting, config.held_out, config.seed, ctx)
        require_an_update(config, len(problems), ctx)
        adapter = lora_adapter(config)
        rewards = policy.open_rewards(config.rewards, ctx.maybe("reward"), ctx)
        trainer = self.ready_trainer(config, ctx, prompts.tokenizer, problems, rewards, adapter)
        watched = [name for name, reward in rewards.items() if not reward.config.weight]
        held_out.watch(trainer, kept, rewards, config)
        guard = alarms.alarm_callback(ctx, watched, config.alarm == "stop")
        trainer.add_callback(guard)
        # Where all answers of all groups are paid the same, warnings_of() says so.
        run_trainer(trainer, config, ctx, needs_gradient=False)
        log = write_log(trainer, ctx)
        saved = guard.restore(trainer) if guard.stopped else trainer.state.global_step
        trainer.detach()
        save_model(merged(trainer.model, adapter), prompts.tokenizer, ctx)
        updates = trainer.state.global_step
        # The first metrics are what people see at the end of the step.
        curves = curve_metrics(log, list(rewards), self.curves)
        for warning in warnings_of(log, curves, config):
            ctx.say(f"{ctx.step}: {warning}")
        raised = list(signals.alarms_of(log, watched))
        write_signs(trainer.rollouts, raised, ctx)
        return {
            **{name: curves[name] for name in HEADLINE if name in curves},
            "updates": updates,
            "answers": updates * config.batch_size // getattr(config, "num_iterations", 1),
            "problems": len(problems),
            "alarms": len(raised),
            "saved_update": saved,
            **curves,
        }


def require_engine(engine: str, ctx: Context) -> None:
    """Raise StageError if the engine is not installed where the policy is trained.

    That may be another machine than the one that plans, so this is no ``needs`` of the option.
    """
    if engine == "vllm" and not importlib.util.find_spec("vllm"):
        raise StageError(
            f"{ctx.step}: engine=vllm needs vLLM and a GPU; pip install 'trl[vllm]' there, or take "
            "rl.engine=hf"
        )


def write_signs(
    rollouts: Sequence[Mapping[str, Any]], raised: Sequence[signals.Alarm], ctx: Context
) -> None:
    """Write kept answers and the alarms, for the report."""
    from llmstages.train import distributed

    if distributed.first_process():
        rows = [{**alarm._asdict(), "sentence": alarm.sentence()} for alarm in raised]
        tables.write_lines(ctx.out / ROLLOUTS, rollouts)
        tables.write_lines(ctx.out / ALARMS, rows)


def require_an_update(config: Any, problems: int, ctx: Context) -> None:
    """Raise StageError if there are too few problems for one update: none would be made."""
    prompts = config.batch_size // config.num_generations
    if problems < prompts:
        raise StageError(
            f"{ctx.step}: an update takes {prompts} problems (batch_size={config.batch_size} / "
            f"num_generations={config.num_generations}), and there are {problems}. "
            f"Set {ctx.step}.batch_size={problems * config.num_generations} or lower"
        )
