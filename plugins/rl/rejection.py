"""rl.rejection: sample many answers, keep the right ones, train on them.

Rejection sampling fine-tuning (STaR, Zelikman et al. 2022; Llama 2, section 3.2.3) is the simplest
form of reinforcement learning. Right answers are kept as often as they were sampled: kept once
each, the many ways of guessing would weigh more than the few ways of working it out. An answer that
was cut before it ended is never kept. Where tools are wired in, the calls of a right answer are
trained with it; what the tools said carries no loss. In an environment (problems=environment) an
answer is a dialogue, and what the environment said carries no loss either.

With ``rounds`` the trained policy samples again, from problems drawn anew, and is trained further
(expert iteration; ReST, Gulcehre et al. 2023, whose inner loop this leaves out).
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from llmstages.core.stage import Context, option
from llmstages.plugins.rl import policy
from llmstages.plugins.rl.attempts import Attempt, Sampling
from llmstages.text import chat_format
from llmstages.text.messages import Message
from llmstages.text.render import ChangedByLaterTurns, Rendered, render, render_answers
from llmstages.train.adapters import LoraOptions
from llmstages.train.arguments import Optimization
from llmstages.train.passes import updates_of

ROUND = "round.json"  # in the folder of a policy that is whole
LOG = "log.jsonl"


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
    rounds: int = option(
        1, "times that the policy samples and is trained, each time from the policy before", ge=1
    )
    questions: int = option(300, "problems sampled in each round", ge=1)
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
    version: ClassVar[str] = "7"
    trains: ClassVar[bool] = True
    # Batches of 64 are computed at once; what an interruption costs is one part.
    part_size: ClassVar[int] = 256
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
        because = f"{number:,.0f} problems, each {config.num_generations} times"
        if config.rounds > 1:
            because += f", in {config.rounds} rounds"
        generation = Generation(
            models,
            config.rounds * number * config.num_generations,
            config.max_completion_length,
            because=because,
        )
        return {"generation": generation, "model": models[0]}

    def prepare(self, config: RejectionConfig, ctx: Context) -> policy.Prompts:
        """The prompts as the policy sees them, with their checks."""
        return policy.prepare(ctx, 0, config.max_completion_length)

    def run(self, config: RejectionConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.text import generate
        from llmstages.train import checks
        from llmstages.train.distributed import first_process

        set_seed(config.seed)
        prompts = self.prepare(config, ctx)
        # Other ids are of checks of the kept rows, which train() enforces.
        prompt_ids = {check.id for check in prompts.checks}
        allowed = [id for id in config.allow_failed_checks if id in prompt_ids]
        checks.enforce(prompts.checks, ctx, allowed)
        problems = policy.fitting_problems(prompts, ctx)
        artifact = ctx.maybe("tools")
        sampling = Sampling(
            ctx,
            config,
            prompts.tokenizer,
            policy.open_rewards(config.rewards, ctx.maybe("reward"), ctx),
            generate.open_tools(artifact.path) if artifact else None,
            self.part_size,
        )
        current = ctx.one("policy")
        rounds: list[dict[str, float]] = []
        outs: list[Path] = []
        for number in range(1, config.rounds + 1):
            folder = ctx.work / f"round-{number}"
            # The last policy is the result; the others serve the round after them.
            out = ctx.out if number == config.rounds else folder / "policy"
            of_round = replace(ctx, out=out, work=folder, inputs={**ctx.inputs, "policy": current})
            facts = _finished(out)
            if facts is None:
                facts = self.one_round(number, of_round, sampling, prompts, problems)
            rounds.append(facts)
            outs.append(out)
            current = replace(current, path=out)
            if not facts["kept"]:
                break  # the next round would sample from the same policy
        if first_process():
            _collect(ctx.out, outs, rounds)
        return _metrics(rounds)

    def one_round(
        self,
        number: int,
        ctx: Context,
        sampling: Sampling,
        prompts: policy.Prompts,
        problems: Sequence[policy.Problem],
    ) -> dict[str, float]:
        """Sample from the policy of the round, keep what is right, and train on it.

        Args:
            number: of the round, from 1.
            ctx: whose ``policy``, ``out`` and ``work`` are those of the round.
            sampling: how answers are made and paid.
            prompts: as prepared.
            problems: of which ``questions`` are drawn.

        Returns:
            The numbers of the round.
        """
        from transformers import set_seed

        from llmstages.data import tables
        from llmstages.train.distributed import Processes, compute_device, first_process
        from llmstages.train.trainer import load_model, save_model

        config = sampling.config
        model = load_model(ctx.one("policy"), ctx).to(compute_device())
        rng = random.Random(config.seed if number == 1 else f"{config.seed}/{number}")
        drawn = rng.sample(problems, min(config.questions, len(problems)))
        attempts = sampling.sample(model, drawn, ctx.work, number)
        kept, facts = self.keep(config, drawn, attempts, rng, prompts.tokenizer, sampling.tools)
        if first_process():
            ctx.out.mkdir(parents=True, exist_ok=True)
            rows = [
                {"prompt": answer.prompt[-1]["content"], "answer": answer.said[-1]["content"]}
                for answer in kept
            ]
            tables.write_lines(ctx.out / "kept.jsonl", rows)
        set_seed(config.seed)  # of new adapters; sampling may have been skipped
        if kept:
            facts["updates"] = self.train(config, ctx, model, prompts, kept)
        else:
            ctx.say(
                f"{ctx.step}: none of {facts['sampled']:.0f} answers was right, so the policy is "
                "left as it is"
            )
            save_model(model, prompts.tokenizer, ctx)
        if first_process():
            tables.write_json(ctx.out / ROUND, facts)
        Processes().gather(None)  # nobody reads the policy before it is whole
        return facts

    def keep(
        self,
        config: RejectionConfig,
        problems: Sequence[policy.Problem],
        attempts: Sequence[Attempt],
        rng: random.Random,
        tokenizer: Any,
        tools: Mapping[str, Any] | None,
    ) -> tuple[list[Answer], dict[str, float]]:
        """The right answers that are trained on, and the numbers of the round."""
        from llmstages.text import generate

        is_right = [
            attempt.paid is not None and attempt.paid >= config.threshold for attempt in attempts
        ]
        right_of: dict[int, list[Attempt]] = {}
        for attempt, right in zip(attempts, is_right, strict=True):
            if right and attempt.ended:
                right_of.setdefault(attempt.problem, []).append(attempt)
        kept: list[Answer] = []
        for place, right in sorted(right_of.items()):
            if config.distinct:
                right = list({attempt.text: attempt for attempt in right}.values())
            prompt = generate.with_schemas(tokenizer, problems[place]["prompt"], tools)
            for attempt in rng.sample(right, min(config.keep, len(right))):
                kept.append(Answer(prompt, attempt.said))
        return kept, {
            "sampled": len(attempts),
            "right": sum(is_right) / max(len(attempts), 1),
            "solved": len(right_of) / max(len(problems), 1),
            "kept": len(kept),
            "tool_calls": sum(attempt.calls for attempt in attempts) / max(len(attempts), 1),
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


def _metrics(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of a step: sums over its rounds, and the shares of the last one."""
    metrics = dict(rounds[-1])
    for name in ("sampled", "kept", "updates"):
        if any(name in facts for facts in rounds):
            metrics[name] = sum(facts.get(name, 0) for facts in rounds)
    if len(rounds) > 1:
        metrics["right_first"] = rounds[0]["right"]
        metrics["rounds"] = len(rounds)
    return metrics


def _collect(out: Path, policies: Sequence[Path], rounds: Sequence[Mapping[str, float]]) -> None:
    """Write what the rounds have in common: their numbers, their logs as one, the result.

    Args:
        out: the folder of the artifact.
        policies: the folder of each round's policy; the last one is the result.
        rounds: the numbers of each round.
    """
    from llmstages.data import tables

    log = []
    updates = 0
    for folder, facts in zip(policies, rounds, strict=True):
        if (folder / LOG).exists():
            rows = tables.read_lines(folder / LOG)
            log += [{**row, "step": updates + row["step"]} for row in rows]
        updates += int(facts.get("updates", 0))
    if policies[-1] != out:  # a round without a right answer ended the loop
        shutil.copytree(policies[-1], out, dirs_exist_ok=True)
    (out / ROUND).unlink()
    if log:
        tables.write_lines(out / LOG, log)
    table = [{"step": number, **facts} for number, facts in enumerate(rounds, 1)]
    tables.write_lines(out / "rounds.jsonl", table)


def _finished(folder: Path) -> dict[str, float] | None:
    """The numbers of a round whose policy is whole; None if it must be made."""
    file = folder / ROUND
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
