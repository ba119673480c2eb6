"""rl.rloo: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024) by TRL's RLOOTrainer.

The advantage of an answer is its reward against the mean of the *other* answers to its prompt, and
a whole answer is one action: its probability is weighed, not those of its tokens. The KL penalty is
a part of the reward. With tools, what they returned is no part of the action (rloo_trainer.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.rl.curves import SAME_REWARDS
from llmstages.plugins.rl.online import CURVES, Online, OnlineConfig


@dataclass(frozen=True)
class RLOOConfig(OnlineConfig):
    normalize_advantages: bool = option(
        False, "advantages in standard deviations of all answers of the update"
    )


class RLOO(Online):
    """A policy that is rewarded for answers that are better than the others to the same prompt."""

    Config = RLOOConfig
    version: ClassVar[str] = "2"
    curves: ClassVar[Mapping[str, str]] = {**CURVES, SAME_REWARDS: "no_signal"}

    def trainer_arguments(
        self, config: Any, ctx: Context, tokenizer: Any, rewards: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            **super().trainer_arguments(config, ctx, tokenizer, rewards),
            "normalize_advantages": config.normalize_advantages,
        }

    def trainer_class(self) -> type:
        from llmstages.plugins.rl.rloo_trainer import rloo_trainer

        return rloo_trainer()

    def built_arguments(self, config: Any, arguments: Mapping[str, Any]) -> Any:
        from trl import RLOOConfig as TRLConfig  # pyright: ignore[reportPrivateImportUsage]

        return TRLConfig(**arguments)
