"""rl.dpo: direct preference optimization (Rafailov et al. 2023) by TRL's DPOTrainer.

It learns from rankings without a reward model: the chosen answer of each pair becomes likelier than
the rejected one. What it shares with KTO is in rankings.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.plugins.rl.rankings import (
    FromRankings,
    Parts,
    RankingOptions,
    dpo_trainer,
    pairs_dataset,
)
from llmstages.train.preference_pairs import Pairs


@dataclass(frozen=True)
class DPOConfig(RankingOptions):
    loss: str = option(
        "sigmoid",
        "as in trl.DPOConfig.loss_type: sigmoid is DPO, ipo Azar et al. 2023, hinge Zhao et al. "
        "2023, robust Chowdhury et al. 2024",
        choices=("sigmoid", "ipo", "hinge", "robust"),
    )
    label_smoothing: float = option(
        0.0,
        "share of pairs that are expected to be ranked the wrong way round; for loss=robust, "
        "which needs more than 0",
        ge=0,
        lt=0.5,
    )


class DPO(FromRankings):
    """A policy that prefers the better answer of each pair."""

    Config = DPOConfig
    version: ClassVar[str] = "5"

    def prepare(self, config: DPOConfig, ctx: Context) -> Pairs:
        """Pairs as for a reward model, without those that DPO cannot use (rankings.py).

        Raises:
            StageError: no pair is left, or the loss needs ``label_smoothing``.
        """
        if config.loss == "robust" and not config.label_smoothing:
            raise StageError(
                f"{ctx.step}.loss=robust needs {ctx.step}.label_smoothing above 0: the share of "
                "pairs ranked the wrong way round"
            )
        if config.label_smoothing and config.loss != "robust":
            raise StageError(
                f"{ctx.step}.label_smoothing={config.label_smoothing:g} has no effect with "
                f"loss={config.loss}; set {ctx.step}.loss=robust, or leave it out"
            )
        return super().prepare(config, ctx)

    def rows(self, pairs: Sequence[Mapping[str, Any]], tokenizer: Any) -> Any:
        return pairs_dataset(pairs, tokenizer)

    def trainer(self, config: DPOConfig, parts: Parts) -> Any:
        return dpo_trainer(
            parts,
            parts.rows,
            beta=config.beta,
            loss_type=[config.loss],
            label_smoothing=config.label_smoothing,
        )

    def finish(
        self, config: DPOConfig, parts: Parts, trainer: Any, ctx: Context
    ) -> tuple[Any, Mapping[str, float]]:
        from llmstages.train.adapters import merged

        metrics = trainer.evaluate() if parts.test else {}
        return merged(trainer.model, parts.adapter), metrics
