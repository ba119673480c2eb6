"""reward.pairwise: a reward model from rankings by TRL's RewardTrainer (Bradley-Terry loss).

Ouyang et al. 2022, section 3.5. Prompt and answer are rendered by the renderer of all stages up to
the end of turn, whose state is scored, exactly as RL later shows them to the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.data.intervals import wilson
from llmstages.train.passes import row_order, updates_of
from llmstages.train.preference_pairs import SIDES, PairOptions, Pairs


@dataclass(frozen=True)
class PairwiseConfig(PairOptions):
    learning_rate: float = option(3e-4, "peak learning rate of AdamW, falling as a cosine")


class Pairwise:
    """A model that scores an answer with one number."""

    Config = PairwiseConfig
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 1.0}
    inputs: ClassVar[Mapping[str, str]] = {"model": "model", "preferences": "preferences"}
    output: ClassVar[str] = "reward_model"
    version: ClassVar[str] = "5"
    trains: ClassVar[bool] = True

    def estimate(
        self, config: PairwiseConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of training on both sides of each pair."""
        from llmstages.cost.pairs import pair_training
        from llmstages.data.planned_tokens import count_pairs

        model, preferences = known["model"][0], known["preferences"][0]
        folder = model.get("tokenizer_folder")
        counted = count_pairs(preferences, folder, config.max_length, config.test_fraction)
        return pair_training(config, model, counted, preferences["name"])

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
        from llmstages.train.adapters import lora_adapter, merged
        from llmstages.train.arguments import training_arguments
        from llmstages.train.dropout import keep_dropout
        from llmstages.train.scoring import set_scoring_pad
        from llmstages.train.trainer import (
            load_model,
            run_trainer,
            save_model,
            write_log,
        )

        set_seed(config.seed)
        pairs = self.prepare(config, ctx)
        checks.enforce(pairs.checks, ctx, config.allow_failed_checks)
        tokenizer = pairs.tokenizer
        model = load_model(ctx.one("model"), ctx, kind="reward")
        rows = [_scored_sides(pair, tokenizer) for pair in pairs.train]
        set_scoring_pad(model, tokenizer, [ids for row in rows for ids in row.values()])
        rows = _with_margins(rows, pairs.train, ctx)
        adapter = lora_adapter(config)
        if adapter:
            adapter.task_type = "SEQ_CLS"  # the head is new, so it is trained whole
        steps = updates_of(len(rows), config.epochs, config.batch_size)
        order = row_order(len(rows), steps, config.batch_size, config.seed)
        arguments = training_arguments(
            config,
            ctx,
            max_steps=steps,
            lr_scheduler_type="cosine",
            remove_unused_columns=True,
        )
        trainer: Any = RewardTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list(rows).select(order),
            peft_config=adapter,
            args=RewardConfig(**arguments, max_length=config.max_length),
        )
        keep_dropout(trainer.model, config)
        run_trainer(trainer, config, ctx)
        write_log(trainer, ctx)
        trained = merged(trainer.model, adapter)
        save_model(trained, tokenizer, ctx)
        measured = accuracy(trained, tokenizer, pairs.test)
        # The first metrics are what people see at the end of the step.
        accuracy_first = {"accuracy": measured.pop("accuracy")} if "accuracy" in measured else {}
        return {
            **accuracy_first,
            "pairs": len(pairs.train),
            "test_pairs": len(pairs.test),
            "updates": trainer.state.global_step,
            "dropped_too_long": pairs.facts["dropped, too long"],
            **measured,
        }


def _scored_sides(pair: Mapping[str, Any], tokenizer: Any) -> dict[str, list[int]]:
    """``chosen_ids`` and ``rejected_ids``: both sides up to the token that is scored."""
    from llmstages.train.scoring import scored_ids

    return {f"{side}_ids": scored_ids(pair[f"{side}_rendered"], tokenizer) for side in SIDES}


def _with_margins(
    rows: Sequence[dict[str, Any]], pairs: Sequence[Mapping[str, Any]], ctx: Context
) -> list[dict[str, Any]]:
    """The rows with their margins, where any pair has one; 0 for the others."""
    margins = [pair.get("margin") for pair in pairs]
    known = sum(margin is not None for margin in margins)
    if not known:
        return list(rows)
    ctx.say(
        f"{ctx.step}: {known} of {len(pairs)} pairs have a margin, by which the chosen answer has "
        "to score higher"
    )
    return [
        {**row, "margin": float(margin or 0.0)} for row, margin in zip(rows, margins, strict=True)
    ]


def accuracy(model: Any, tokenizer: Any, pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of pairs whose chosen answer scores higher, in all and by the column ``kind``.

    Each share has the ends of its 95 % interval (``accuracy_low``, ``accuracy_high``).

    Pairs with equal scores are in neither: their share is ``ties``. Where all are ties there is no
    accuracy.
    """
    from llmstages.train.scoring import scores

    sides = [_scored_sides(pair, tokenizer) for pair in pairs]
    chosen = scores(model, tokenizer, [row["chosen_ids"] for row in sides])
    rejected = scores(model, tokenizer, [row["rejected_ids"] for row in sides])
    by_name: dict[str, list[bool]] = {}
    ties = 0
    for pair, better, worse in zip(pairs, chosen, rejected, strict=True):
        if better == worse:
            ties += 1
            continue
        for name in ("accuracy", f"accuracy/{pair.get('kind') or 'all'}"):
            by_name.setdefault(name, []).append(better > worse)
    metrics: dict[str, float] = {}
    for name, values in by_name.items():
        low, high = wilson(sum(values), len(values))
        metrics[name] = sum(values) / len(values)
        metrics |= {f"{name}_low": low, f"{name}_high": high}
    return {**metrics, "ties": ties / len(pairs)} if pairs else {}
