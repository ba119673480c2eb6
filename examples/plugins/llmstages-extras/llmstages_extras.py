"""A third-party package: one filter and one RL variant. Install it, and both are in ``llmstages list``."""

from dataclasses import dataclass

from llmstages.plugins.corpus.filter import Drop
from llmstages.plugins.rl.grpo import GRPO
from llmstages.stage import option


class Shouting:
    """Drops pages in which too many letters are capitals."""

    @dataclass(frozen=True)
    class Config:
        limit: float = option(0.3, "largest share of letters that are capitals")

    kind, version = "judge", "1"

    def __init__(self, config):
        self.config = config

    def apply(self, documents):
        return [self.judge([c for c in d.text if c.isalpha()]) for d in documents]

    def judge(self, letters):
        share = sum(c.isupper() for c in letters) / max(len(letters), 1)
        return Drop("capitals", share, f"<= {self.config.limit}") if share > self.config.limit else None


class DrGRPO(GRPO):
    """GRPO without its length and difficulty bias (Liu et al. 2025, "Understanding R1-Zero-Like Training")."""

    version = "1"

    def trl_options(self, config):
        return {"loss_type": "dr_grpo", "scale_rewards": "none"}
