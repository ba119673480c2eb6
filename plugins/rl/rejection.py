"""rl.rejection: sample many answers, keep the right ones, train on them.

Rejection sampling fine-tuning (STaR, Zelikman et al. 2022; Llama 2, section 3.2.3) is the simplest
form of reinforcement learning. Right answers are kept as often as they were sampled: kept once
each, the many ways of guessing would weigh more than the few ways of working it out. An answer that
was cut before it ended is never kept. Where tools are wired in, the calls of a right answer are
trained with it; what the tools said carries no loss. In an environment (problems=environment) an
answer is a dialogue, and what the environment said carries no loss either.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.plugins.rl import policy
from llmstages.text import chat_format
from llmstages.text.environments import open_episode
from llmstages.text.messages import Message
from llmstages.text.render import ChangedByLaterTurns, Rendered, render, render_answers
from llmstages.train.adapters import LoraOptions
from llmstages.train.arguments import Optimization
from llmstages.train.passes import updates_of


class Answer(NamedTuple):
    """A sampled answer: what was asked, and what the policy and its tools said after it."""

    prompt: Sequence[Message]
    said: Sequence[Message]

    def rendered(self, tokenizer: Any) -> list[Rendered]:
        """Training rows with loss on what the policy said, whose prompts are those of sampling.

        It is one row. Where the template writes a turn differently once others follow, it is one
        for each turn of the policy.
        """
        turns = [*self.prompt, *self.said]
        own = range(len(self.prompt), len(turns))
        ends = [end + 1 for end in own if turns[end]["role"] == "assistant"]
        if len(ends) > 1:
            (prompt,) = chat_format.prompt_ids(tokenizer, [self.prompt])
            row = _whole(tokenizer, turns)
            if row and row.ids[: len(prompt)] == prompt:
                row.supervised[: len(prompt)] = [False] * len(prompt)
                return [row]
        return render_answers(tokenizer, [turns[:end] for end in ends])


def _whole(tokenizer: Any, turns: Sequence[Message]) -> Rendered | None:
    """A dialogue as one row, with loss on all its answers; None where later turns change them."""
    try:
        (row,) = render(tokenizer, [turns])
    except ChangedByLaterTurns:
        return None
    return row


@dataclass(frozen=True)
class RejectionConfig(LoraOptions, Optimization):
    learning_rate: float = option(5e-4, "peak learning rate of AdamW, falling linearly")
    questions: int = option(300, "problems sampled", ge=1)
    num_generations: int = option(
        15, "answers sampled for each problem", ge=1, renamed_from="samples"
    )
    keep: int = option(4, "right answers kept for each problem at most, drawn at random", ge=1)
    distinct: bool = option(
        False, "keep no answer of a problem twice; this favors lucky guesses, which differ more"
    )
    threshold: float = option(0.99, "an answer is kept from this reward on")
    temperature: float = option(1.0, "temperature of the sampled answers", gt=0)
    max_completion_length: int = option(
        64, "longest answer in tokens", ge=1, renamed_from="max_answer"
    )
    max_tool_calls: int = option(
        2, "calls of one answer at most, where tools are wired in (+steps.rl.tools=tools)", ge=1
    )
    max_tool_seconds: float = option(
        0.0, "seconds that all calls of one answer may take; 0 = any number", ge=0
    )
    max_length: int = option(256, "tokens in a training row", ge=1, renamed_from="row")
    epochs: float = option(2.0, "passes over the kept answers", gt=0)
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
        "tools": "dialogues?",  # a tools artifact, whose tools the policy may call
    }
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "6"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"rewards": ("exact_answer",)}

    def estimate(
        self, config: RejectionConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of sampling; how much is kept and trained on shows only then."""
        from llmstages.cost.generation import Generation, models_of, row_count

        models = models_of(known["policy"])
        if isinstance(models, str):
            return {"no_estimate": models}
        number = min(config.questions, row_count(known["problems"][0]) or config.questions)
        generation = Generation(
            models,
            number * config.num_generations,
            config.max_completion_length,
            because=f"{number:,.0f} problems, each {config.num_generations} times",
        )
        return {"generation": generation, "model": models[0]}

    def prepare(self, config: RejectionConfig, ctx: Context) -> policy.Prompts:
        """The prompts as the policy sees them, with their checks."""
        return policy.prepare(ctx, 0, config.max_completion_length)

    def run(self, config: RejectionConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import tables
        from llmstages.train import checks
        from llmstages.train.distributed import compute_device
        from llmstages.train.trainer import load_model, save_model

        set_seed(config.seed)
        prompts = self.prepare(config, ctx)
        # Other ids are of checks of the kept rows, which train() enforces.
        prompt_ids = {check.id for check in prompts.checks}
        allowed = [id for id in config.allow_failed_checks if id in prompt_ids]
        checks.enforce(prompts.checks, ctx, allowed)
        model = load_model(ctx.one("policy"), ctx).to(compute_device())
        kept, metrics = self.sample(config, ctx, model, prompts)
        tables.write_lines(
            ctx.out / "kept.jsonl",
            [
                {"prompt": answer.prompt[-1]["content"], "answer": answer.said[-1]["content"]}
                for answer in kept
            ],
        )
        if not kept:
            ctx.say(
                f"{ctx.step}: none of {metrics['sampled']:.0f} answers was right, so the policy is "
                "left as it is"
            )
            save_model(model, prompts.tokenizer, ctx)
            return metrics
        updates = self.train(config, ctx, model, prompts, kept)
        return {**metrics, "updates": updates}

    def sample(
        self, config: RejectionConfig, ctx: Context, model: Any, prompts: policy.Prompts
    ) -> tuple[list[Answer], dict[str, float]]:
        """Sample answers and keep the right ones: (answers kept, metrics)."""
        from llmstages.text import generate

        rng = random.Random(config.seed)
        problems = policy.fitting_problems(prompts, ctx)
        problems = rng.sample(problems, min(config.questions, len(problems)))
        rewards = policy.open_rewards(config.rewards, ctx.maybe("reward"), ctx)
        per_problem = config.num_generations
        asked = [problem for problem in problems for _ in range(per_problem)]
        artifact = ctx.maybe("tools")
        tools = generate.open_tools(artifact.path) if artifact else None
        episodes = [open_episode(problem) for problem in asked]
        with ctx.progress(f"{ctx.step} sampling", len(asked)) as advance:
            replies = generate.reply(
                model,
                prompts.tokenizer,
                [problem["prompt"] for problem in asked],
                tools,
                max_calls=config.max_tool_calls if tools else 0,
                max_tool_seconds=config.max_tool_seconds,
                episodes=episodes,
                temperature=config.temperature,
                max_new_tokens=config.max_completion_length,
                advance=advance,
            )
        asked = policy.with_outcomes(asked, replies, episodes, bool(tools))
        totals = total_rewards(rewards, asked, [reply.text for reply in replies])
        kept: list[Answer] = []
        solved = 0
        for index, problem in enumerate(problems):
            own = slice(index * per_problem, (index + 1) * per_problem)
            right = [
                reply
                for reply, total in zip(replies[own], totals[own], strict=True)
                if total >= config.threshold and reply.ended
            ]
            if config.distinct:
                right = list({reply.text: reply for reply in right}.values())
            if right:
                solved += 1
            prompt = generate.with_schemas(prompts.tokenizer, problem["prompt"], tools)
            for reply in rng.sample(right, min(config.keep, len(right))):
                kept.append(Answer(prompt, reply.messages))
        number_right = sum(total >= config.threshold for total in totals)
        return kept, {
            "sampled": len(asked),
            "right": number_right / max(len(asked), 1),
            "solved": solved / max(len(problems), 1),
            "kept": len(kept),
            "tool_calls": sum(len(reply.calls) for reply in replies) / max(len(replies), 1),
        }

    def train(
        self,
        config: RejectionConfig,
        ctx: Context,
        model: Any,
        prompts: policy.Prompts,
        kept: Sequence[Answer],
    ) -> int:
        """Train on the kept answers and save the model; returns the number of updates."""
        from llmstages.data.packing import pack
        from llmstages.train import checks, token_checks
        from llmstages.train.adapters import lora_adapter, merged
        from llmstages.train.trainer import (
            context_length,
            run_trainer,
            save_model,
            sft_trainer,
            write_log,
        )

        tokenizer = prompts.tokenizer
        rendered = [row for answer in kept for row in answer.rendered(tokenizer)]
        fitting = [row for row in rendered if len(row.ids) <= config.max_length]
        if len(fitting) < len(rendered):
            ctx.say(
                f"{ctx.step}: {len(rendered) - len(fitting)} of {len(rendered)} kept answers "
                f"dropped, longer than max_length={config.max_length} tokens"
            )
        context = context_length(ctx.one("policy"))
        row_checks = token_checks.check_rows(fitting, tokenizer, context=context)
        checks.enforce([*prompts.checks, *row_checks], ctx, config.allow_failed_checks)
        pad = chat_format.padding_id(tokenizer)
        rows, _ = pack(fitting, config.max_length, pad, config.seed)
        steps = updates_of(len(rows), config.epochs, config.batch_size)
        adapter = lora_adapter(config)
        trainer = sft_trainer(config, ctx, model, tokenizer, rows, steps, adapter)
        run_trainer(trainer, config, ctx, config.batch_size * config.max_length)
        write_log(trainer, ctx)
        trained = merged(trainer.model, adapter)
        save_model(trained, tokenizer, ctx)
        return trainer.state.global_step


def total_rewards(
    rewards: Mapping[str, Any], problems: Sequence[policy.Problem], completions: Sequence[str]
) -> list[float]:
    """The weighted sum of all rewards, one per completion; NaN where all paid ones abstained.

    Raises:
        StageError: every reward has weight 0.
    """
    if not any(reward.config.weight for reward in rewards.values()):
        raise StageError("every reward has weight 0, so nothing can be kept; set a weight")
    scores = {
        name: policy.score_completions(name, reward, problems, completions)
        for name, reward in rewards.items()
    }
    return policy.weighted_sums(rewards, scores)
