"""rl.rejection: sample many answers, keep the right ones, train on them (rejection sampling fine-tuning; STaR, Zelikman
et al. 2022; Llama 2 section 3.2.3). The simplest reinforcement learning there is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.plugins.rl import policy
from llmstages.text.messages import message
from llmstages.train.trainer import Optimization


@dataclass(frozen=True)
class RejectionConfig(Optimization):
    learning_rate: float = option(5e-4, "peak learning rate of AdamW, falling linearly")
    questions: int = option(300, "problems sampled")
    num_generations: int = option(15, "answers sampled for each problem", renamed_from="samples")
    keep: int = option(4, "different right answers kept for each problem at most")
    threshold: float = option(0.99, "an answer is kept from this reward on")
    temperature: float = option(1.0, "temperature of the samples")
    max_completion_length: int = option(64, "longest answer in tokens", renamed_from="max_answer")
    max_length: int = option(256, "tokens in a training row", renamed_from="row")
    epochs: float = option(2.0, "passes over the kept answers")
    rewards: dict[str, Any] = option(
        help="what is rewarded: name -> reward and its weight", factory=dict
    )


class Rejection:
    """A policy trained on its own right answers."""

    Config = RejectionConfig
    smoke: ClassVar[Mapping[str, Any]] = {
        "questions": 8,
        "num_generations": 3,
        "max_completion_length": 24,
    }
    inputs: ClassVar[Mapping[str, str]] = {
        "policy": "model",
        "problems": "problems|dialogues",
        "reward": "reward_model?",
    }
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "2"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"rewards": ("exact_answer",)}

    def run(self, config: RejectionConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import tables
        from llmstages.data.packing import pack
        from llmstages.text.render import render
        from llmstages.train import checks
        from llmstages.train.trainer import (
            compute_device,
            load_model,
            run_trainer,
            save_model,
            sft_trainer,
            write_log,
        )

        set_seed(config.seed)
        prompts = self.prepare(config, ctx)
        checks.enforce(
            prompts.gates,
            ctx,
            [name for name in config.allow_failed_checks if name in map(checks.key, prompts.gates)],
        )  # the others are of rows
        tokenizer, model = prompts.tokenizer, load_model(ctx.one("policy"), ctx)
        kept, metrics = self.sample(config, ctx, model.to(compute_device()), prompts)
        tables.write_lines(
            ctx.out / "kept.jsonl",
            [{"prompt": d[-2]["content"], "answer": d[-1]["content"]} for d in kept],
        )
        if not kept:
            ctx.say(
                f"{ctx.step}: none of {metrics['sampled']:.0f} answers was right, so the policy is left as it is"
            )
            save_model(model, tokenizer, ctx)
            return metrics
        rendered = render(tokenizer, kept)
        if long := sum(len(r.ids) > config.max_length for r in rendered):
            ctx.say(
                f"{ctx.step}: {long} of {len(rendered)} kept answers dropped, longer than max_length={config.max_length} tokens"
            )
        rendered = [r for r in rendered if len(r.ids) <= config.max_length]
        checks.enforce(
            [*prompts.gates, *checks.check_rows(rendered, tokenizer)],
            ctx,
            config.allow_failed_checks,
        )
        rows, _ = pack(rendered, config.max_length, tokenizer.pad_token_id, config.seed)
        steps = math.ceil(len(rows) * config.epochs / config.batch_size)
        trainer = sft_trainer(config, ctx, model, tokenizer, rows, steps)
        run_trainer(trainer, config, ctx, config.batch_size * config.max_length)
        write_log(trainer, ctx)
        save_model(trainer.model, tokenizer, ctx)
        return {**metrics, "updates": steps}

    def prepare(self, config: RejectionConfig, ctx: Context) -> policy.Prompts:
        """The prompts as the policy will see them."""
        return policy.prepare(ctx, 0, config.max_completion_length)

    def sample(
        self, config: RejectionConfig, ctx: Context, model: Any, prompts: policy.Prompts
    ) -> tuple[list[Any], dict[str, float]]:
        """(kept dialogues, how sampling went)."""
        from llmstages.text import generate

        rng = random.Random(config.seed)
        rows = policy.fitting(prompts, ctx)
        rows = rng.sample(rows, min(config.questions, len(rows)))
        rewards = policy.open_rewards(config.rewards, ctx.maybe("reward"), ctx.step)
        asked = [row for row in rows for _ in range(config.num_generations)]
        with ctx.progress(f"{ctx.step} sampling", len(asked)) as advance:
            replies = generate.reply(
                model,
                prompts.tokenizer,
                [r["prompt"] for r in asked],
                rounds=1,
                temperature=config.temperature,
                max_new_tokens=config.max_completion_length,
                advance=advance,
            )
        total = self.reward(rewards, asked, [r.text for r in replies])
        kept, solved = [], 0
        for index, row in enumerate(rows):
            span = range(index * config.num_generations, (index + 1) * config.num_generations)
            good = sorted(
                {replies[i].text for i in span if total[i] >= config.threshold and replies[i].ended}
            )
            solved += bool(good)
            kept += [[*row["prompt"], message("assistant", text)] for text in good[: config.keep]]
        return kept, {
            "sampled": len(asked),
            "right": sum(t >= config.threshold for t in total) / max(len(asked), 1),
            "solved": solved / max(len(rows), 1),
            "kept": len(kept),
        }

    def reward(
        self, rewards: Mapping[str, Any], asked: Sequence[Mapping[str, Any]], texts: Sequence[str]
    ) -> list[float]:
        """The weighted sum of rewards of each answer."""
        columns = {"answer": [row["answer"] for row in asked]}
        parts = [
            [r.config.weight * s for s in r.score([row["prompt"] for row in asked], texts, columns)]
            for r in rewards.values()
        ]
        if not any(r.config.weight for r in rewards.values()):
            raise StageError(
                "every reward has weight 0, so nothing can be kept; set the weight of one"
            )
        return [sum(values) for values in zip(*parts, strict=True)]
