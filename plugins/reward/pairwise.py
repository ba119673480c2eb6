"""reward.pairwise: a reward model from rankings with TRL's RewardTrainer (Bradley-Terry loss, Ouyang et al. 2022).

Prompt and answer are rendered by the one renderer, end of turn included, exactly as RL later shows them to the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.train.preference_pairs import Pairs
from llmstages.train.trainer import Optimization


@dataclass(frozen=True)
class PairwiseConfig(Optimization):
    learning_rate: float = option(3e-4, "peak learning rate of AdamW, falling as a cosine")
    batch_size: int = option(16, "pairs in one update")
    warmup_steps: int = option(10, "updates of linear warm-up")
    epochs: float = option(2.0, "passes over the pairs")
    max_length: int = option(512, "pairs with a longer side (tokens) are dropped and counted")
    test_fraction: float = option(
        0.1,
        "share of the pairs kept for measuring where none are marked split=test",
        renamed_from="test_share",
    )


class Pairwise:
    """A model that scores an answer with one number."""

    Config = PairwiseConfig
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 1.0}
    inputs: ClassVar[Mapping[str, str]] = {"model": "model", "preferences": "preferences"}
    output: ClassVar[str] = "reward_model"
    version: ClassVar[str] = "2"
    trains: ClassVar[bool] = True

    def run(self, config: PairwiseConfig, ctx: Context) -> Mapping[str, float]:
        import datasets
        from transformers import set_seed
        from trl import RewardConfig, RewardTrainer

        from llmstages.train import checks
        from llmstages.train.trainer import (
            load_model,
            run_trainer,
            save_model,
            training_arguments,
            write_log,
        )

        set_seed(config.seed)
        prepared = self.prepare(config, ctx)
        checks.enforce(prepared.gates, ctx, config.allow_failed_checks)
        tokenizer, train, test = prepared.tokenizer, prepared.train, prepared.test
        model = load_model(ctx.one("model"), ctx, kind="reward")
        model.config.pad_token_id = tokenizer.pad_token_id
        steps = math.ceil(len(train) * config.epochs / config.batch_size)
        trainer = RewardTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list(
                [{k: r[k] for k in ("chosen_ids", "rejected_ids")} for r in train]
            ),
            args=RewardConfig(
                **training_arguments(config, ctx, max_steps=steps, lr_scheduler_type="cosine")
                | {"remove_unused_columns": True},
                max_length=config.max_length,
            ),
        )
        run_trainer(trainer, config, ctx)
        write_log(trainer, ctx)
        save_model(trainer.model, tokenizer, ctx)
        return {
            "pairs": len(train),
            "test_pairs": len(test),
            "updates": steps,
            "dropped_too_long": prepared.facts["dropped, too long"],
            **accuracy(trainer.model, tokenizer, test),
        }

    def prepare(self, config: PairwiseConfig, ctx: Context) -> Pairs:
        """Both sides of each pair rendered, and their gates."""
        from llmstages.train import preference_pairs

        return preference_pairs.prepare(
            ctx.one("model"), ctx.one("preferences"), config.max_length, config.test_fraction, ctx
        )


def accuracy(model: Any, tokenizer: Any, test: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of test pairs in which the chosen answer scores higher, in all and by ``kind``."""
    from llmstages.train.scoring import scores

    better = [
        a > b
        for a, b in zip(
            scores(model, tokenizer, [r["chosen_ids"] for r in test]),
            scores(model, tokenizer, [r["rejected_ids"] for r in test]),
            strict=True,
        )
    ]
    kinds: dict[str, list[bool]] = {"accuracy": better}
    for row, won in zip(test, better, strict=True):
        kinds.setdefault(f"accuracy/{row.get('kind') or 'all'}", []).append(won)
    return {name: sum(won) / max(len(won), 1) for name, won in kinds.items()}
