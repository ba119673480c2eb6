"""rl.grpo: group relative policy optimisation (Shao et al. 2024, DeepSeekMath) with TRL's GRPOTrainer.

For each prompt several answers are sampled; the advantage of each is its reward against the mean of its group, so there
is no critic. Rewards are plugins: a verifier, a reward model, or both; weight 0 only logs one beside the others, which is
how a proxy and the truth are watched side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.rl import policy
from llmstages.train.trainer import Optimization


@dataclass(frozen=True)
class GRPOConfig(Optimization):
    learning_rate: float = option(5e-5, "learning rate of AdamW, constant after warm-up")
    batch_size: int = option(64, "answers in one update: prompts times samples")
    num_generations: int = option(
        8, "answers sampled for each prompt (the group)", renamed_from="samples"
    )
    max_steps: int = option(24, "optimiser updates", renamed_from="updates")
    warmup_steps: int = option(5, "updates of linear warm-up")
    weight_decay: float = option(0.0, "AdamW weight decay")
    beta: float = option(
        0.02, "weight of the KL penalty against the starting policy (beta)", renamed_from="kl"
    )
    temperature: float = option(1.0, "temperature of the samples")
    max_completion_length: int = option(64, "longest answer in tokens", renamed_from="max_answer")
    limit: int = option(0, "problems used at most; 0 = all")
    rewards: dict[str, Any] = option(
        help="what is rewarded: name -> reward and its weight", factory=dict
    )
    log_every: int = option(2, "updates between log lines; logged curves are means over them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_generations < 2 or self.batch_size % self.num_generations:
            raise ValueError(
                f"batch_size={self.batch_size} must be a multiple of num_generations={self.num_generations}, and a group needs at least 2"
            )


class GRPO:
    """A policy that is rewarded for what it says."""

    Config = GRPOConfig
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
    }
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "2"
    trains: ClassVar[bool] = True
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"rewards": ("exact_answer",)}

    def prepare(self, config: GRPOConfig, ctx: Context) -> policy.Prompts:
        """The prompts as the policy will see them."""
        return policy.prepare(ctx, config.limit, config.max_completion_length)

    def trl_options(self, config: Any) -> dict[str, Any]:
        """Further arguments of trl.GRPOConfig; what a variant of GRPO overrides."""
        return {}

    def run(self, config: GRPOConfig, ctx: Context) -> Mapping[str, float]:
        import datasets
        import trl
        from transformers import set_seed

        from llmstages.train import checks
        from llmstages.train.trainer import (
            ends_of,
            load_model,
            run_trainer,
            save_model,
            training_arguments,
            write_log,
        )

        set_seed(config.seed)
        prompts = self.prepare(config, ctx)
        checks.enforce(prompts.gates, ctx, config.allow_failed_checks)
        rows, tokenizer, model = (
            policy.fitting(prompts, ctx),
            prompts.tokenizer,
            load_model(ctx.one("policy"), ctx),
        )
        rewards = policy.open_rewards(config.rewards, ctx.maybe("reward"), ctx.step)
        trainer = policy.safe_trainer()(
            model=model,
            processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list(rows),
            reward_funcs=policy.reward_functions(rewards, tokenizer),
            args=trl.GRPOConfig(
                **training_arguments(
                    config,
                    ctx,
                    max_steps=config.max_steps,
                    lr_scheduler_type="constant_with_warmup",
                ),
                num_generations=config.num_generations,
                max_completion_length=config.max_completion_length,
                temperature=config.temperature,
                beta=config.beta,
                reward_weights=[float(r.config.weight) for r in rewards.values()],
                generation_kwargs={"eos_token_id": tokenizer.eos_token_id},
                **self.trl_options(config),
            ),
        )
        run_trainer(trainer, config, ctx)
        log = write_log(trainer, ctx)
        save_model(trainer.model, tokenizer, ctx)
        metrics = {
            "updates": config.max_steps,
            "answers": config.max_steps * config.batch_size,
            "problems": len(rows),
        }
        for name, key in (
            ("reward", "reward"),
            *((n, f"rewards/{n}/mean") for n in rewards),
            ("length", "completions/mean_length"),
            ("clipped", "completions/clipped_ratio"),
            ("kl", "kl"),
        ):
            first, last = ends_of(log, key, 0.15)
            if first == first:
                values = [row[key] for row in log if key in row]
                metrics |= {
                    f"{name}_first": first,
                    f"{name}_last": last,
                    f"{name}_best": max(values),
                }
        return metrics
