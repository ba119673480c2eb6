"""reward.pairwise: a reward model from rankings with TRL's RewardTrainer (Bradley-Terry loss, Ouyang et al. 2022).

Prompt and answer are rendered by the one renderer, end of turn included, exactly as RL later shows them to the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.dialogues import Dialogue, Prepared
from llmstages.stage import Context, StageError, option
from llmstages.training import Optimisation


@dataclass(frozen=True)
class PairwiseConfig(Optimisation):
    learning_rate: float = option(3e-4, "peak learning rate of AdamW, falling as a cosine")
    batch_rows: int = option(16, "pairs in one update")
    warmup: int = option(10, "updates of linear warm-up")
    epochs: float = option(2.0, "passes over the pairs")
    max_length: int = option(512, "pairs with a longer side (tokens) are dropped and counted")
    test_share: float = option(0.1, "share of the pairs kept for measuring where none are marked split=test")


class Pairwise:
    """A model that scores an answer with one number."""

    Config = PairwiseConfig
    inputs: ClassVar[Mapping[str, str]] = {"model": "model", "preferences": "preferences"}
    output: ClassVar[str] = "reward_model"
    version: ClassVar[str] = "2"
    trains: ClassVar[bool] = True

    def run(self, config: PairwiseConfig, ctx: Context) -> Mapping[str, float]:
        import datasets
        from transformers import set_seed
        from trl import RewardConfig, RewardTrainer

        from llmstages import gates, training

        set_seed(config.seed)
        prepared = self.prepare(config, ctx)
        gates.settle(prepared.gates, ctx, config.allow)
        tokenizer, train, test = prepared.tokenizer, prepared.train, prepared.test
        model = training.load_model(ctx.one("model"), ctx, kind="reward")
        model.config.pad_token_id = tokenizer.pad_token_id
        steps = math.ceil(len(train) * config.epochs / config.batch_rows)
        trainer = RewardTrainer(
            model=model, processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list([{k: r[k] for k in ("chosen_ids", "rejected_ids")} for r in train]),
            args=RewardConfig(**training.arguments(config, ctx, max_steps=steps, lr_scheduler_type="cosine") | {"remove_unused_columns": True},
                              max_length=config.max_length))
        training.train(trainer, config, ctx)
        training.write_log(trainer, ctx)
        training.save_model(trainer.model, tokenizer, ctx)
        return {"pairs": len(train), "test_pairs": len(test), "updates": steps, "dropped_too_long": prepared.facts["dropped, too long"],
                **accuracy(trainer.model, tokenizer, test)}

    def prepare(self, config: PairwiseConfig, ctx: Context) -> Pairs:
        """Both sides of each pair rendered, and their gates."""
        from llmstages import chat, gates, tables, training

        tokenizer, source = training.load_tokenizer(ctx.one("model").path), ctx.one("preferences")
        rows = [dict(row, name=f"{source.name}:{i}") for i, row in enumerate(tables.load(source.path / "data"))]
        sides = [Dialogue(f"{row['name']} {side}", [*row["prompt"], *row[side]]) for side in ("chosen", "rejected") for row in rows]
        found = gates.of_dialogues(sides)
        if any(not g["passed"] and g["gate"] == gates.UNKNOWN_ROLES for g in found):
            gates.settle(found, ctx)
        for side in ("chosen", "rejected"):
            for row, done in zip(rows, chat.render(tokenizer, [[*r["prompt"], *r[side]] for r in rows]), strict=True):
                row[f"{side}_ids"], row[f"{side}_rendered"] = done.ids, done
        short = [r for r in rows if max(len(r["chosen_ids"]), len(r["rejected_ids"])) <= config.max_length]
        long = [r["name"] for r in rows if max(len(r["chosen_ids"]), len(r["rejected_ids"])) > config.max_length]
        if long:
            ctx.say(f"{ctx.step}: {len(long)} of {len(rows)} pairs dropped, longer than max_length={config.max_length} tokens")
        train, test = split(short, config.test_share)
        if not train:
            raise StageError(f"{ctx.step}: no preference pair is left to train on; raise {ctx.step}.max_length or look at {source.name}")
        rendered = [(f"{r['name']} {side}", r[f"{side}_rendered"]) for side in ("chosen", "rejected") for r in train]
        names, done = [name for name, _ in rendered], [one for _, one in rendered]
        found += [gates.too_long(long, len(rows)), *gates.of_rows(done, tokenizer, names, context=training.context_of(ctx.one("model"))),
                  *gates.of_template(sides, tokenizer), *gates.of_model(ctx.one("model").path, tokenizer)]
        return Pairs(tokenizer, done, names, found, {"pairs": len(rows), "dropped, too long": len(long)}, train=train, test=test)


@dataclass
class Pairs(Prepared):
    """Prepared rows, and the pairs they are the sides of."""

    train: Sequence[dict[str, Any]] = ()
    test: Sequence[dict[str, Any]] = ()


def split(rows: Sequence[dict[str, Any]], share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(train, test): by the column ``split`` where it is given, else every n-th pair is kept for measuring."""
    if any(row.get("split") == "test" for row in rows):
        return [r for r in rows if r.get("split") != "test"], [r for r in rows if r.get("split") == "test"]
    every = max(2, round(1 / share)) if share else len(rows) + 1
    return [r for i, r in enumerate(rows) if i % every], [r for i, r in enumerate(rows) if i % every == 0]


def accuracy(model: Any, tokenizer: Any, test: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of test pairs in which the chosen answer scores higher, in all and by ``kind``."""
    from llmstages.scoring import scores

    better = [a > b for a, b in zip(scores(model, tokenizer, [r["chosen_ids"] for r in test]),
                                    scores(model, tokenizer, [r["rejected_ids"] for r in test]), strict=True)]
    kinds: dict[str, list[bool]] = {"accuracy": better}
    for row, won in zip(test, better, strict=True):
        kinds.setdefault(f"accuracy/{row.get('kind') or 'all'}", []).append(won)
    return {name: sum(won) / max(len(won), 1) for name, won in kinds.items()}
