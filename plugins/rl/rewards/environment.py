"""reward environment: what the environment of a problem paid in a dialogue, over all its steps.

The problems are those of ``problems=environment``. Where the environment failed nothing is known,
so the reward abstains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import option


@dataclass(frozen=True)
class EnvironmentRewardConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")


class EnvironmentReward:
    """The sum of the rewards of an environment's steps."""

    Config = EnvironmentRewardConfig
    version = "1"

    def __init__(self, config: EnvironmentRewardConfig) -> None:
        self.config = config

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float | None]:
        """What each dialogue earned. Raises StageError if no problem has an environment."""
        if "earned" not in rows:
            raise StageError(
                "the reward environment pays what environments paid, and these problems have none; "
                "take problems=environment, or leave the reward out"
            )
        return list(rows["earned"])
