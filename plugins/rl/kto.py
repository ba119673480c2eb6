"""rl.kto: Kahneman-Tversky optimization (Ethayarajh et al. 2024) by TRL's KTOTrainer.

It learns from single answers that are good or bad: a chosen answer is to become likelier than the
policy's answers are on average, a rejected one less likely. So the two sides of a pair need not be
of the same prompt, and bad answers count on their own. What it shares with DPO is in rankings.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmstages.core.stage import Context, option
from llmstages.plugins.rl.rankings import (
    FromRankings,
    Parts,
    RankingOptions,
    dpo_trainer,
    pairs_dataset,
    pretokenized,
)
from llmstages.train.preference_pairs import SIDES


@dataclass(frozen=True)
class KTOConfig(RankingOptions):
    batch_size: int = option(32, "answers in one update; a pair has two", ge=2)
    desirable_weight: float = option(1.0, "weight of the loss of chosen answers", gt=0)
    undesirable_weight: float = option(1.0, "weight of the loss of rejected answers", gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.micro_batch_size == 1:
            raise ValueError(
                "micro_batch_size must be 2 or more: KTO compares an answer with those to other "
                "prompts of the same micro batch"
            )


class KTO(FromRankings):
    """A policy that makes good answers likelier and bad ones less likely, each for itself."""

    Config = KTOConfig

    def estimate(
        self, config: KTOConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """As of DPO, whose batches count pairs."""
        return super().estimate(replace(config, batch_size=config.batch_size // 2), known)

    def rows(self, pairs: Sequence[Mapping[str, Any]], tokenizer: Any) -> Any:
        import datasets

        rows = [
            {
                "row": pair["row"],
                "prompt_ids": pair["prompt_ids"],
                "completion_ids": pair[f"{side}_ids"],
                "label": side == "chosen",
            }
            for pair in pairs_dataset(pairs, tokenizer)
            for side in SIDES
        ]
        return datasets.Dataset.from_list(rows)

    def trainer(self, config: KTOConfig, parts: Parts) -> Any:
        from trl import KTOConfig as TRLConfig  # pyright: ignore[reportPrivateImportUsage]
        from trl import KTOTrainer  # pyright: ignore[reportPrivateImportUsage]

        micro_batch = parts.arguments["per_device_train_batch_size"]
        return pretokenized(KTOTrainer)(
            model=parts.model,
            ref_model=parts.reference,
            processing_class=parts.tokenizer,
            train_dataset=with_other_answers(parts.rows, micro_batch),
            peft_config=parts.adapter,
            args=TRLConfig(
                **parts.arguments,
                beta=config.beta,
                desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight,
                max_length=None,
            ),
        )

    def finish(
        self, config: KTOConfig, parts: Parts, trainer: Any, ctx: Context
    ) -> tuple[Any, Mapping[str, float]]:
        """Margin and accuracy are those of DPO, over pairs, which KTO itself does not compare."""
        from llmstages.train.adapters import merged
        from llmstages.train.trainer import load_model

        trained = merged(trainer.model, parts.adapter)
        if not parts.test:
            return trained, {}
        reference = parts.reference or load_model(ctx.one("policy"), ctx)
        both = replace(parts, model=trained, reference=reference, adapter=None)
        return trained, dpo_trainer(both, None, beta=config.beta).evaluate()


def with_other_answers(rows: Any, micro_batch: int) -> Any:
    """The rows with ``KL_completion_ids``, the answer to another prompt of the same micro batch.

    From these KTO estimates how much likelier answers became on average. Each row has the answer of
    the row before it, and the first that of the last.

    Args:
        rows: a datasets.Dataset in the order of training.
        micro_batch: rows that are computed at once.
    """
    answers = rows["completion_ids"]
    others = []
    for begin in range(0, len(answers), micro_batch):
        block = list(answers[begin : begin + micro_batch])
        others += [block[-1], *block[:-1]]
    return rows.add_column("KL_completion_ids", others)
