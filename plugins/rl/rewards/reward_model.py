"""reward reward_model: the score of a reward model, shown the dialogue as it was shown in its own training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.stage import Artifact, option
from llmstages.tables import message


@dataclass(frozen=True)
class RewardModelConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")


class RewardModel:
    """What the model trained on rankings thinks of an answer. ``needs`` names the kind of artifact it opens."""

    Config = RewardModelConfig
    version = "1"
    needs = "reward_model"

    def __init__(self, config: RewardModelConfig) -> None:
        self.config = config

    def open(self, artifact: Artifact) -> None:
        """Load the reward model and its tokenizer."""
        from llmstages import training

        self.model = training.load_model(artifact, None, kind="reward").to(training.device())
        self.tokenizer = training.load_tokenizer(artifact.path)

    def score(self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> list[float]:
        """The reward model's number for each completion."""
        from llmstages import chat
        from llmstages.scoring import scores

        rendered = chat.render(self.tokenizer, [[*p, message("assistant", c)] for p, c in zip(prompts, completions, strict=True)])
        return scores(self.model, self.tokenizer, [r.ids for r in rendered])
