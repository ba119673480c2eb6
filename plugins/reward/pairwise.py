"""reward.pairwise: a reward model from rankings by TRL's RewardTrainer (Bradley-Terry loss).

Ouyang et al. 2022, section 3.5. Prompt and answer are rendered by the renderer of all stages, end
of turn included, exactly as RL later shows them to the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.train.arguments import Optimization
from llmstages.train.preference_pairs import Pairs


@dataclass(frozen=True)
class PairwiseConfig(Optimization):
    learning_rate: float = option(3e-4, "peak learning rate of AdamW, falling as a cosine")
    batch_size: int = option(16, "pairs in one update")
    warmup_steps: int = option(10, "updates of linear warm-up")
    epochs: float = option(2.0, "passes over the pairs", gt=0)
    max_length: int = option(512, "pairs with a longer side (tokens) are dropped and counted", ge=1)
    test_fraction: float = option(
        0.1,
        "share of the pairs kept for measuring if none are marked split=test",
        ge=0,
        le=0.5,
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

    def prepare(self, config: PairwiseConfig, ctx: Context) -> Pairs:
        """Both sides of each pair, rendered, with their checks."""
        from llmstages.train import preference_pairs

        return preference_pairs.prepare(
            ctx.one("model"), ctx.one("preferences"), config.max_length, config.test_fraction, ctx
        )

    def run(self, config: PairwiseConfig, ctx: Context) -> Mapping[str, float]:
        import datasets
        from transformers import set_seed
        from trl import RewardConfig, RewardTrainer  # pyright: ignore[reportPrivateImportUsage]

        from llmstages.train import checks
        from llmstages.train.arguments import training_arguments
        from llmstages.train.trainer import load_model, run_trainer, save_model, write_log

        set_seed(config.seed)
        pairs = self.prepare(config, ctx)
        checks.enforce(pairs.checks, ctx, config.allow_failed_checks)
        tokenizer = pairs.tokenizer
        model = load_model(ctx.one("model"), ctx, kind="reward")
        model.config.pad_token_id = tokenizer.pad_token_id
        rows = [
            {"chosen_ids": pair["chosen_ids"], "rejected_ids": pair["rejected_ids"]}
            for pair in pairs.train
        ]
        steps = math.ceil(len(rows) * config.epochs / config.batch_size)
        arguments = training_arguments(
            config,
            ctx,
            max_steps=steps,
            lr_scheduler_type="cosine",
            remove_unused_columns=True,
        )
        trainer = RewardTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list(rows),
            args=RewardConfig(**arguments, max_length=config.max_length),
        )
        run_trainer(trainer, config, ctx)
        write_log(trainer, ctx)
        save_model(trainer.model, tokenizer, ctx)
        return {
            "pairs": len(pairs.train),
            "test_pairs": len(pairs.test),
            "updates": trainer.state.global_step,
            "dropped_too_long": pairs.facts["dropped, too long"],
            **accuracy(trainer.model, tokenizer, pairs.test),
        }


def accuracy(model: Any, tokenizer: Any, pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of pairs whose chosen answer scores higher, in all and by the column ``kind``."""
    from llmstages.train.scoring import scores

    chosen = scores(model, tokenizer, [pair["chosen_ids"] for pair in pairs])
    rejected = scores(model, tokenizer, [pair["rejected_ids"] for pair in pairs])
    is_right = [better > worse for better, worse in zip(chosen, rejected, strict=True)]
    by_name: dict[str, list[bool]] = {"accuracy": is_right}
    for pair, right in zip(pairs, is_right, strict=True):
        by_name.setdefault(f"accuracy/{pair.get('kind') or 'all'}", []).append(right)
    return {name: sum(values) / max(len(values), 1) for name, values in by_name.items()}
