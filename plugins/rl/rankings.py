"""What the variants share that learn from rankings without a reward model: DPO and KTO.

The policy is its own judge: the reward of an answer is beta times how much likelier it became than
under the model that training started from. Pairs are rendered by the renderer of all stages and
pass the checks of SFT, chosen and rejected alike. Only the answers carry loss, up to the token that
ends the turn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.train.dropout import disable_dropout, refuse_dropout
from llmstages.train.passes import row_order, updates_of
from llmstages.train.preference_pairs import SIDES, PairOptions, Pairs

# Name of the metrics -> logged series.
CURVES = {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
}


@dataclass(frozen=True)
class RankingOptions(PairOptions):
    """Options of every variant that learns from rankings."""

    learning_rate: float = option(5e-5, "peak learning rate of AdamW, falling linearly")
    weight_decay: float = option(0.0, "AdamW weight decay")
    beta: float = option(
        0.1, "how strongly the policy is held to the model that training starts from", gt=0
    )


@dataclass
class Parts:
    """What a trainer is made of.

    Attributes:
        arguments: keyword arguments of TrainingArguments.
        model, reference: what is trained, and a frozen copy; None where adapters are trained, since
            the model without them is the reference.
        adapter: a peft config, or None.
        rows: what is trained on, in the order of training.
        tokenizer: of the model.
        test: pairs to measure on.
    """

    arguments: dict[str, Any]
    model: Any
    reference: Any
    adapter: Any
    rows: Any
    tokenizer: Any
    test: Sequence[Mapping[str, Any]]


class FromRankings:
    """A policy trained on rankings; the base of variants, none by itself."""

    Config: ClassVar[type] = RankingOptions
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 0.5}
    inputs: ClassVar[Mapping[str, str]] = {"policy": "model", "preferences": "preferences"}
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "1"
    trains: ClassVar[bool] = True

    def estimate(
        self, config: Any, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of training on both sides of each pair, beside the reference."""
        from llmstages.cost.pairs import pair_training
        from llmstages.data.planned_tokens import count_pairs

        policy, preferences = known["policy"][0], known["preferences"][0]
        folder = policy.get("tokenizer_folder")
        counted = count_pairs(preferences, folder, config.max_length, config.test_fraction)
        return pair_training(config, policy, counted, preferences["name"], has_reference=True)

    def prepare(self, config: Any, ctx: Context) -> Pairs:
        """Pairs as for a reward model, without those that cannot be used (``unusable``)."""
        return prepare(config, ctx, type(self).__name__)

    def rows(self, pairs: Sequence[Mapping[str, Any]], tokenizer: Any) -> Any:
        """The datasets.Dataset that is trained on."""
        raise NotImplementedError

    def trainer(self, config: Any, parts: Parts) -> Any:
        """A trainer that is ready to train."""
        raise NotImplementedError

    def finish(
        self, config: Any, parts: Parts, trainer: Any, ctx: Context
    ) -> tuple[Any, Mapping[str, float]]:
        """(the trained model without adapters, the metrics of TRL on the test pairs).

        The names of the metrics begin with ``eval_``; there are none without test pairs.
        """
        raise NotImplementedError

    def run(self, config: Any, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.train import checks
        from llmstages.train.adapters import lora_adapter
        from llmstages.train.arguments import training_arguments
        from llmstages.train.trainer import (
            ends_of,
            load_model,
            run_trainer,
            save_model,
            write_log,
        )

        set_seed(config.seed)
        pairs = self.prepare(config, ctx)
        checks.enforce(pairs.checks, ctx, config.allow_failed_checks)
        rows = self.rows(pairs.train, pairs.tokenizer)
        steps = updates_of(len(rows), config.epochs, config.batch_size)
        order = row_order(len(rows), steps, config.batch_size, config.seed)
        model = load_model(ctx.one("policy"), ctx)
        disable_dropout(model)
        adapter = lora_adapter(config)
        parts = Parts(
            arguments=training_arguments(config, ctx, max_steps=steps, lr_scheduler_type="linear"),
            model=model,
            reference=None if adapter else load_model(ctx.one("policy"), ctx),
            adapter=adapter,
            rows=rows.select(order),
            tokenizer=pairs.tokenizer,
            test=pairs.test,
        )
        trainer = self.trainer(config, parts)
        run_trainer(trainer, config, ctx)
        log = write_log(trainer, ctx)
        trained, test_metrics = self.finish(config, parts, trainer, ctx)
        save_model(trained, pairs.tokenizer, ctx)
        # The first metrics are what people see at the end of the step.
        metrics: dict[str, float] = {
            f"test_{name}": test_metrics[f"eval_{key}"]
            for name, key in CURVES.items()
            if test_metrics
        }
        for name, key in CURVES.items():
            first, last = ends_of(log, key)
            if not math.isnan(first):
                metrics |= {f"{name}_last": last, f"{name}_first": first}
        return metrics | {
            "pairs": len(pairs.train),
            "test_pairs": len(pairs.test),
            "updates": trainer.state.global_step,
            "dropped_too_long": pairs.facts["dropped, too long"],
        }


def prepare(config: RankingOptions, ctx: Context, variant: str) -> Pairs:
    """Pairs as for a reward model, without those that cannot be used (``unusable``).

    Raises:
        StageError: no pair is left.
    """
    from llmstages.train import preference_pairs

    refuse_dropout(config, ctx, variant)
    policy, preferences = ctx.one("policy"), ctx.one("preferences")
    pairs = preference_pairs.prepare(
        policy, preferences, config.max_length, config.test_fraction, ctx
    )
    tokenizer = pairs.tokenizer
    train, dropped_of_train = _usable(pairs.train, tokenizer)
    test, dropped_of_test = _usable(pairs.test, tokenizer)
    reasons = dropped_of_train + dropped_of_test
    for reason, count in reasons.items():
        ctx.say(f"{ctx.step}: {count} pairs dropped, {reason}")
    if not train:
        raise StageError(
            f"{ctx.step}: {variant} can use no pair of {preferences.name}: "
            f"{', '.join(reasons) or 'all are kept for measuring'}. Each side must be one "
            "answer of the assistant"
        )
    margins = sum(pair.get("margin") is not None for pair in train)
    if margins:
        ctx.say(f"{ctx.step}: the margins of {margins} pairs are not used; {variant} has none")
    pairs.train, pairs.test = train, test
    return pairs


def _usable(
    pairs: Sequence[dict[str, Any]], tokenizer: Any
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The pairs that can be used, and how many are dropped for which reason."""
    used, dropped = [], Counter[str]()
    for pair in pairs:
        reason = unusable(pair, tokenizer)
        if reason:
            dropped[reason] += 1
        else:
            used.append(pair)
    return used, dropped


def unusable(pair: Mapping[str, Any], tokenizer: Any) -> str:
    """Why a pair cannot be used; "" if it can.

    The loss is on all of a completion, so it must be the assistant's alone.
    """
    from llmstages.train.scoring import answer_span

    for side in SIDES:
        if any(turn["role"] != "assistant" for turn in pair[side]):
            return "whose answers hold turns of a user or a tool"
        if len(pair[side]) != 1:
            return "whose answers are several turns of the assistant"
    chosen, rejected = (answer_span(pair[f"{side}_rendered"], tokenizer) for side in SIDES)
    if not chosen or not rejected:
        return "whose answers carry no loss"
    if pair["chosen_ids"][: chosen.start] != pair["rejected_ids"][: rejected.start]:
        return "whose sides do not begin with the same prompt"
    return ""


def pairs_dataset(pairs: Sequence[Mapping[str, Any]], tokenizer: Any) -> Any:
    """A datasets.Dataset of row, prompt_ids, and the ids of the completion on each side.

    The pairs must be usable.
    """
    import datasets

    from llmstages.train.scoring import answer_span

    rows = []
    for number, pair in enumerate(pairs):
        row = {"row": number}
        for side in SIDES:
            ids = pair[f"{side}_ids"]
            span = answer_span(pair[f"{side}_rendered"], tokenizer)
            assert span is not None
            row["prompt_ids"] = ids[: span.start]
            row[f"{side}_ids"] = ids[span]
        rows.append(row)
    return datasets.Dataset.from_list(rows)


def pretokenized(base: Any) -> type:
    """A trainer of TRL that takes our tokens as they are.

    Its own tokenization renders a template, in which a text can forge control tokens.

    Args:
        base: trl.DPOTrainer or trl.KTOTrainer.
    """

    class PretokenizedTrainer(base):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return PretokenizedTrainer


def dpo_trainer(parts: Parts, rows: Any, **options: Any) -> Any:
    """TRL's DPOTrainer; the one that measures margins and accuracy for all variants.

    Args:
        parts: what it is made of.
        rows: what is trained on; None to measure alone.
        options: further arguments of trl.DPOConfig.
    """
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportPrivateImportUsage]

    held = pairs_dataset(parts.test, parts.tokenizer) if parts.test else None
    arguments: dict[str, Any] = {
        **parts.arguments,
        **options,
        "max_length": None,
        # TRL averages over batches: with one pair in each, every pair counts the same.
        "per_device_eval_batch_size": 1,
    }
    return pretokenized(DPOTrainer)(
        model=parts.model,
        ref_model=parts.reference,
        processing_class=parts.tokenizer,
        train_dataset=held if rows is None else rows,
        eval_dataset=held,
        peft_config=parts.adapter,
        args=DPOConfig(**arguments),
    )
