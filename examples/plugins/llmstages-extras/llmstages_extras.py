"""A third-party package with one filter and one RL variant.

Once it is installed, both are in ``llmstages list``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmstages.data.filtering import Check, Document, Rules
from llmstages.plugin import option
from llmstages.plugins.rl.grpo import GRPO


class Shouting(Rules):
    """Drops pages in which too many letters are capitals."""

    @dataclass(frozen=True)
    class Config:
        limit: float = option(0.3, "largest share of letters that are capitals", ge=0, le=1)

    version = "1"

    def rules(self, document: Document) -> Iterator[Check]:
        letters = [character for character in document.text if character.isalpha()]
        capitals = sum(letter.isupper() for letter in letters)
        yield Check("capitals", capitals / max(len(letters), 1), most=self.config.limit)


class DrGRPO(GRPO):
    """GRPO without its bias for length and difficulty (Liu et al. 2025, arXiv 2503.20783)."""

    version = "1"

    def trainer_arguments(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        arguments = super().trainer_arguments(*args, **kwargs)
        return {**arguments, "loss_type": "dr_grpo", "scale_rewards": "none"}
