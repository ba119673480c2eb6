"""rl.ppo: proximal policy optimization (Schulman et al. 2017; Ouyang et al. 2022, section 3.5).

A critic learns what an answer will be paid, token by token; the advantage of a token is how much
better it went than that (GAE). So one answer to each prompt is enough, and more prompts fit into an
update than with GRPO. With a reward model and a KL penalty it is the RLHF of InstructGPT.

The trainer is in ppo_trainer.py, the critic in critic.py, the arithmetic in advantages.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.rl import critic as critics
from llmstages.plugins.rl.online import CURVES, Online, OnlineConfig


@dataclass(frozen=True)
class PPOConfig(OnlineConfig):
    num_generations: int = option(
        1, "answers sampled for each prompt", ge=1, renamed_from="samples"
    )
    num_iterations: int = option(
        2,
        "updates on the same answers before new ones are sampled; they are a part of max_steps",
        ge=1,
    )
    critic: str = option(
        "model",
        "a copy of the policy's layers with a head (model), or a head on the policy's own (head)",
        choices=critics.KINDS,
    )
    critic_learning_rate: float = option(
        1e-4, "learning rate of the critic, constant after warm-up", gt=0
    )
    gamma: float = option(1.0, "discount of one token", gt=0, le=1)
    lam: float = option(
        0.95,
        "1 pays a token by what came of it, 0 by what the critic thinks of the next",
        ge=0,
        le=1,
    )
    vf_coef: float = option(0.1, "weight of the critic's loss", gt=0)
    cliprange_value: float = option(
        0.2, "an update gains nothing from changing a value by more than this", gt=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise ValueError("batch_size must be 2 or more: advantages are compared in an update")
        if self.max_steps % self.num_iterations:
            raise ValueError(
                f"max_steps={self.max_steps} must be a multiple of num_iterations="
                f"{self.num_iterations}, or the last answers are sampled and not used"
            )


class PPO(Online):
    """A policy that is rewarded for tokens that made an answer better than expected."""

    Config = PPOConfig
    version: ClassVar[str] = "1"
    smoke: ClassVar[Mapping[str, Any]] = {**Online.smoke, "num_generations": 1}
    curves: ClassVar[Mapping[str, str]] = {
        **CURVES,
        "explained_variance": "explained_variance",
        "value_loss": "value_loss",
    }

    def trainer_arguments(
        self, config: Any, ctx: Context, tokenizer: Any, rewards: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            **super().trainer_arguments(config, ctx, tokenizer, rewards),
            "num_iterations": config.num_iterations,
            "loss_type": "dapo",  # the mean over the tokens of an update
        }

    def trainer_class(self) -> type:
        from llmstages.plugins.rl.ppo_trainer import ppo_trainer

        return ppo_trainer()

    def built_arguments(self, config: Any, arguments: Mapping[str, Any]) -> Any:
        from trl import GRPOConfig as TRLConfig  # pyright: ignore[reportPrivateImportUsage]

        # The config refuses one answer for each prompt, since GRPO compares them; its trainer
        # takes it. A group as large as the batch passes all checks of the config.
        built = TRLConfig(**{**arguments, "num_generations": config.batch_size})
        built.num_generations = arguments["num_generations"]
        return built

    def trainer_extras(self, config: Any, model: Any) -> dict[str, Any]:
        return {"critic": critics.new_critic(model, config.critic), "config": config}

    def estimate(
        self, config: Any, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """As of the others; answers are used several times, and a critic is trained beside."""
        needs = super().estimate(config, known)
        if "no_estimate" in needs:
            return needs
        generation, training = needs["generation"], needs["training"]
        prompts = generation.prompts / config.num_iterations
        has_critic = config.critic == "model"
        return {
            "training": replace(training, has_critic=has_critic),
            "generation": replace(generation, prompts=prompts),
        }
