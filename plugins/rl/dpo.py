"""rl.dpo: direct preference optimization (Rafailov et al. 2023) by TRL's DPOTrainer.

It learns from rankings without a reward model. The policy is its own: the reward of an answer is
beta times how much likelier it became than under the model that training started from. Pairs are
rendered by the renderer of all stages and pass the checks of SFT, chosen and rejected alike. Only
the answers carry loss, up to the token that ends the turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.train.adapters import LoraOptions
from llmstages.train.arguments import Optimization
from llmstages.train.dropout import disable_dropout, refuse_dropout
from llmstages.train.passes import row_order, updates_of
from llmstages.train.preference_pairs import SIDES, Pairs

# Name of the metrics -> logged series.
CURVES = {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
}


@dataclass(frozen=True)
class DPOConfig(LoraOptions, Optimization):
    learning_rate: float = option(5e-5, "peak learning rate of AdamW, falling linearly")
    batch_size: int = option(16, "pairs in one update")
    warmup_steps: int = option(10, "updates of linear warm-up")
    weight_decay: float = option(0.0, "AdamW weight decay")
    epochs: float = option(2.0, "passes over the pairs", gt=0)
    beta: float = option(
        0.1, "how strongly the policy is held to the model that training starts from", gt=0
    )
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
    max_length: int = option(512, "pairs with a longer side (tokens) are dropped and counted", ge=1)
    test_fraction: float = option(
        0.1,
        "share of the pairs kept for measuring if none are marked split=test",
        ge=0,
        le=0.5,
        renamed_from="test_share",
    )


class DPO:
    """A policy trained on rankings."""

    Config = DPOConfig
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 0.5}
    inputs: ClassVar[Mapping[str, str]] = {"policy": "model", "preferences": "preferences"}
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "5"
    trains: ClassVar[bool] = True

    def estimate(
        self, config: DPOConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of training on both sides of each pair, beside the reference."""
        from llmstages.cost.pairs import pair_training
        from llmstages.data.planned_tokens import count_pairs

        policy, preferences = known["policy"][0], known["preferences"][0]
        folder = policy.get("tokenizer_folder")
        counted = count_pairs(preferences, folder, config.max_length, config.test_fraction)
        return pair_training(config, policy, counted, preferences["name"], has_reference=True)

    def prepare(self, config: DPOConfig, ctx: Context) -> Pairs:
        """Pairs as for a reward model, without those that DPO cannot use (``completion_ids``).

        Raises:
            StageError: no pair is left, or the loss needs ``label_smoothing``.
        """
        from llmstages.train import preference_pairs

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
        refuse_dropout(config, ctx, "DPO")
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
                f"{ctx.step}: DPO can use no pair of {preferences.name}: "
                f"{', '.join(reasons) or 'all are kept for measuring'}. Each side must be one "
                "answer of the assistant"
            )
        margins = sum(pair.get("margin") is not None for pair in train)
        if margins:
            ctx.say(f"{ctx.step}: the margins of {margins} pairs are not used; DPO has none")
        pairs.train, pairs.test = train, test
        return pairs

    def run(self, config: DPOConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed
        from trl import DPOConfig as TRLConfig  # pyright: ignore[reportPrivateImportUsage]

        from llmstages.train import checks
        from llmstages.train.adapters import lora_adapter, merged
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
        steps = updates_of(len(pairs.train), config.epochs, config.batch_size)
        order = row_order(len(pairs.train), steps, config.batch_size, config.seed)
        model = load_model(ctx.one("policy"), ctx)
        disable_dropout(model)
        adapter = lora_adapter(config)
        # With adapters, the model without them is the reference.
        reference = None if adapter else load_model(ctx.one("policy"), ctx)
        arguments = training_arguments(config, ctx, max_steps=steps, lr_scheduler_type="linear")
        trainer = pretokenized_trainer()(
            model=model,
            ref_model=reference,
            processing_class=pairs.tokenizer,
            train_dataset=pairs_dataset(pairs.train, pairs.tokenizer).select(order),
            eval_dataset=pairs_dataset(pairs.test, pairs.tokenizer) if pairs.test else None,
            peft_config=adapter,
            args=TRLConfig(
                **arguments,
                beta=config.beta,
                loss_type=[config.loss],
                label_smoothing=config.label_smoothing,
                max_length=None,
                # TRL averages over batches: with one pair in each, every pair counts the same.
                per_device_eval_batch_size=1,
            ),
        )
        run_trainer(trainer, config, ctx)
        log = write_log(trainer, ctx)
        test_metrics = trainer.evaluate() if pairs.test else {}
        trained = merged(trainer.model, adapter)
        save_model(trained, pairs.tokenizer, ctx)
        # The first metrics are what people see at the end of the step.
        metrics: dict[str, float] = {
            f"test_{name}": test_metrics[f"eval_{key}"]
            for name, key in CURVES.items()
            if test_metrics
        }
        for name, key in CURVES.items():
            first, metrics[f"{name}_last"] = ends_of(log, key)
            metrics[f"{name}_first"] = first
        return metrics | {
            "pairs": len(pairs.train),
            "test_pairs": len(pairs.test),
            "updates": trainer.state.global_step,
            "dropped_too_long": pairs.facts["dropped, too long"],
        }


def _usable(
    pairs: Sequence[dict[str, Any]], tokenizer: Any
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The pairs that DPO can use, and how many are dropped for which reason."""
    used, dropped = [], Counter[str]()
    for pair in pairs:
        reason = unusable(pair, tokenizer)
        if reason:
            dropped[reason] += 1
        else:
            used.append(pair)
    return used, dropped


def unusable(pair: Mapping[str, Any], tokenizer: Any) -> str:
    """Why DPO cannot use a pair; "" if it can.

    DPO puts loss on all of a completion, so it must be the assistant's alone.
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


def pretokenized_trainer() -> type:
    """DPOTrainer that takes our tokens as they are.

    Its own tokenization renders a template, in which a text can forge control tokens.
    """
    from trl import DPOTrainer  # pyright: ignore[reportPrivateImportUsage]

    class PretokenizedDPOTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return PretokenizedDPOTrainer
