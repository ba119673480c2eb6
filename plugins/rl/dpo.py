"""rl.dpo: direct preference optimisation (Rafailov et al. 2023) with TRL's DPOTrainer: rankings without a reward model.

The policy is its own reward model: beta times how much likelier an answer became than under the model it began as. Pairs are
rendered by the one renderer and pass the gates of SFT, chosen and rejected alike; only the answers carry loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.train.preference_pairs import SIDES, Pairs
from llmstages.train.trainer import Optimization

CURVES = {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
}


@dataclass(frozen=True)
class DPOConfig(Optimization):
    learning_rate: float = option(5e-5, "peak learning rate of AdamW, falling linearly")
    batch_size: int = option(16, "pairs in one update")
    warmup_steps: int = option(10, "updates of linear warm-up")
    weight_decay: float = option(0.0, "AdamW weight decay")
    epochs: float = option(2.0, "passes over the pairs")
    beta: float = option(0.1, "how strongly the policy is held to the model it began as")
    loss: str = option(
        "sigmoid",
        "as in trl.DPOConfig.loss_type: sigmoid is DPO, ipo Azar et al. 2023, hinge Zhao et al. 2023, robust Chowdhury et al. 2024",
        choices=("sigmoid", "ipo", "hinge", "robust"),
    )
    label_smoothing: float = option(
        0.0,
        "share of pairs that are expected to be ranked the wrong way round; robust needs more than 0",
    )
    max_length: int = option(512, "pairs with a longer side (tokens) are dropped and counted")
    test_fraction: float = option(
        0.1,
        "share of the pairs kept for measuring where none are marked split=test",
        renamed_from="test_share",
    )
    lora_r: int = option(
        0,
        "rank of LoRA adapters on all linear layers, merged at the end; 0 trains all weights",
        renamed_from="lora",
    )


class DPO:
    """A policy trained on rankings."""

    Config = DPOConfig
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 0.5}
    inputs: ClassVar[Mapping[str, str]] = {"policy": "model", "preferences": "preferences"}
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "1"
    trains: ClassVar[bool] = True

    def run(self, config: DPOConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed
        from trl import DPOConfig as Arguments

        from llmstages.train import checks
        from llmstages.train.trainer import (
            ends_of,
            load_model,
            lora_adapter,
            run_trainer,
            save_model,
            training_arguments,
            write_log,
        )

        set_seed(config.seed)
        prepared = self.prepare(config, ctx)
        checks.enforce(prepared.gates, ctx, config.allow_failed_checks)
        steps = math.ceil(len(prepared.train) * config.epochs / config.batch_size)
        model, adapter = load_model(ctx.one("policy"), ctx), lora_adapter(config.lora_r)
        trainer = ready_trainer()(
            model=model,
            ref_model=None if adapter else load_model(ctx.one("policy"), ctx),
            processing_class=prepared.tokenizer,
            train_dataset=answers(prepared.train),
            eval_dataset=answers(prepared.test) if prepared.test else None,
            peft_config=adapter,
            args=Arguments(
                **training_arguments(config, ctx, max_steps=steps, lr_scheduler_type="linear"),
                beta=config.beta,
                loss_type=[config.loss],
                label_smoothing=config.label_smoothing,
                max_length=None,
            ),
        )
        run_trainer(trainer, config, ctx)
        log = write_log(trainer, ctx)
        held = trainer.evaluate() if prepared.test else {}
        trained = trainer.model.merge_and_unload() if adapter else trainer.model
        save_model(trained, prepared.tokenizer, ctx)
        metrics: dict[str, float] = {
            "pairs": len(prepared.train),
            "test_pairs": len(prepared.test),
            "updates": steps,
            "dropped_too_long": prepared.facts["dropped, too long"],
        }
        for name, key in CURVES.items():
            metrics[f"{name}_first"], metrics[f"{name}_last"] = ends_of(log, key)
            metrics |= {f"test_{name}": held[f"eval_{key}"]} if held else {}
        return metrics

    def prepare(self, config: DPOConfig, ctx: Context) -> Pairs:
        """Pairs as for a reward model, without those whose answers hold turns of somebody else: DPO puts loss on all of an answer."""
        from llmstages.train import preference_pairs

        if config.loss == "robust" and not config.label_smoothing:
            raise StageError(
                f"{ctx.step}.loss=robust needs {ctx.step}.label_smoothing above 0: the share of pairs ranked the wrong way round"
            )
        made = preference_pairs.prepare(
            ctx.one("policy"), ctx.one("preferences"), config.max_length, config.test_fraction, ctx
        )
        whole = {
            row["name"]
            for row in (*made.train, *made.test)
            if all(
                all(row[f"{side}_rendered"].supervised[len(row["prompt_ids"]) :]) for side in SIDES
            )
        }
        if left := len(made.train) + len(made.test) - len(whole):
            ctx.say(
                f"{ctx.step}: {left} pairs dropped, whose answers hold turns of a user or a tool"
            )
        made.train, made.test = (
            [row for row in made.train if row["name"] in whole],
            [row for row in made.test if row["name"] in whole],
        )
        if not made.train:
            raise StageError(
                f"{ctx.step}: every answer of {ctx.one('preferences').name} holds turns of somebody else; DPO needs answers alone"
            )
        return made


def answers(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A datasets.Dataset of prompt_ids and what follows them on each side."""
    import datasets

    return datasets.Dataset.from_list(
        [
            {
                "row": number,
                "prompt_ids": row["prompt_ids"],
                **{f"{side}_ids": row[f"{side}_ids"][len(row["prompt_ids"]) :] for side in SIDES},
            }
            for number, row in enumerate(rows)
        ]
    )


def ready_trainer() -> type:
    """DPOTrainer that takes our tokens as they are: its own way renders with a template, in which a text can forge control tokens."""
    from trl import DPOTrainer

    class ReadyDPOTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *rest: Any, **more: Any) -> Any:
            return dataset

    return ReadyDPOTrainer
