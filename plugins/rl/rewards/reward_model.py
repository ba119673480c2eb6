"""reward reward_model: the score of a model trained on rankings (reward.pairwise).

It is shown the dialogue exactly as in its own training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import Artifact, option


@dataclass(frozen=True)
class RewardModelConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")


class RewardModel:
    """The score that a model trained on rankings gives to an answer."""

    Config = RewardModelConfig
    version = "3"
    needs = "reward_model"  # the kind of artifact that open() takes

    def __init__(self, config: RewardModelConfig) -> None:
        self.config = config

    def open(self, artifact: Artifact) -> None:
        """Load the reward model and its tokenizer."""
        from llmstages.train.scoring import open_reward_model

        self.model, self.tokenizer = open_reward_model(artifact)

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """The score of each completion after its prompt."""
        from llmstages.train.scoring import score_answers

        return score_answers(self.model, self.tokenizer, prompts, completions)
