"""A third-party package: one filter and one RL variant. Install it, and both are in ``llmstages list``."""

from dataclasses import dataclass

from llmstages.core.stage import option
from llmstages.data.filtering import Check, Rules
from llmstages.plugins.rl.grpo import GRPO


class Shouting(Rules):
    """Drops pages in which too many letters are capitals."""

    @dataclass(frozen=True)
    class Config:
        limit: float = option(0.3, "largest share of letters that are capitals")

    version = "1"

    def rules(self, document):
        letters = [c for c in document.text if c.isalpha()]
        yield Check(
            "capitals",
            sum(map(str.isupper, letters)) / max(len(letters), 1),
            most=self.config.limit,
        )


class DrGRPO(GRPO):
    """GRPO without its length and difficulty bias (Liu et al. 2025, "Understanding R1-Zero-Like Training")."""

    version = "1"

    def trl_options(self, config):
        return {"loss_type": "dr_grpo", "scale_rewards": "none"}
