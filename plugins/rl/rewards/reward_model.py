"""reward reward_model: the score of a reward model, shown the dialogue as it was shown in its own training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import Artifact, option
from llmstages.text.messages import message


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
        from llmstages.train.trainer import compute_device, load_model, load_tokenizer

        self.model = load_model(artifact, None, kind="reward").to(compute_device())
        self.tokenizer = load_tokenizer(artifact.path)

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """The reward model's number for each completion."""
        from llmstages.text.render import render
        from llmstages.train.scoring import scores

        rendered = render(
            self.tokenizer,
            [[*p, message("assistant", c)] for p, c in zip(prompts, completions, strict=True)],
        )
        return scores(self.model, self.tokenizer, [r.ids for r in rendered])
