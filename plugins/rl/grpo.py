"""rl.grpo: group relative policy optimization (Shao et al. 2024) by TRL's GRPOTrainer.

For each prompt several answers are sampled. The advantage of each is its reward against the mean
of its group, so there is no critic. By default the loss is the mean over the tokens of an update,
as in DAPO (Yu et al. 2025), since the mean by answers of the paper favors short ones;
``loss_type=grpo`` is that of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.rl.curves import SAME_REWARDS
from llmstages.plugins.rl.online import CURVES, Online, OnlineConfig
from llmstages.plugins.rl.safe_trainer import safe_trainer


@dataclass(frozen=True)
class GRPOConfig(OnlineConfig):
    loss_type: str = option(
        "dapo",
        "as in trl.GRPOConfig: mean over all tokens (dapo), over answers (grpo), over a constant "
        "length (dr_grpo), or clipped importance weights (cispo)",
        choices=("dapo", "grpo", "dr_grpo", "cispo"),
    )
    scale_rewards: str = option(
        "group",
        "advantages in standard deviations of their group, of all answers of the update, or as "
        "they are",
        choices=("group", "batch", "none"),
    )
    epsilon_high: float = option(
        0.0, "the same as epsilon for a probability that grows; 0 = epsilon", ge=0
    )
    importance_sampling_level: str = option(
        "token",
        "what is weighed after the policy has moved: each token, or whole answers (GSPO)",
        choices=("token", "sequence"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type == "cispo" and self.epsilon_high <= 1:
            raise ValueError(
                f"loss_type=cispo holds the weight of a token below epsilon_high="
                f"{self.epsilon_high:g}, and a weight is 1 before the policy moves: set it above "
                "1, for example epsilon_high=5, as rl=cispo does"
            )


class GRPO(Online):
    """A policy that is rewarded for answers that are better than others to the same prompt."""

    Config = GRPOConfig
    curves: ClassVar[Mapping[str, str]] = {**CURVES, SAME_REWARDS: "no_signal"}

    def trainer_arguments(
        self, config: Any, ctx: Context, tokenizer: Any, rewards: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            **super().trainer_arguments(config, ctx, tokenizer, rewards),
            "loss_type": config.loss_type,
            "scale_rewards": config.scale_rewards,
            "epsilon_high": config.epsilon_high or None,
            "importance_sampling_level": config.importance_sampling_level,
        }

    def trainer_class(self) -> type:
        from trl import GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

        return safe_trainer(GRPOTrainer)

    def built_arguments(self, config: Any, arguments: Mapping[str, Any]) -> Any:
        from trl import GRPOConfig as TRLConfig  # pyright: ignore[reportPrivateImportUsage]

        return TRLConfig(**arguments)
