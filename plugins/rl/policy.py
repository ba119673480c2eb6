"""What the RL variants share: problems as prompts, reward parts opened and summed, answers cut out of completions.

``safe_trainer`` is the one place that goes under TRL's public surface: it replaces how GRPOTrainer tokenises prompts, so
that RL sees the very tokens of training and no prompt can forge control tokens. A contract test guards the method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data.dialogues import Dialogue, Prepared


def problems(ctx: Context, name: str, limit: int) -> list[dict[str, Any]]:
    """Rows with prompt, answer and group; dialogues give their last answer as the answer. Rows of the role test are left out."""
    from llmstages.data import tables

    rows = []
    for row in tables.load(ctx.one(name).path / "data"):
        if row.get("role") == "test":
            continue
        if "prompt" in row:
            rows.append(
                {
                    "prompt": row["prompt"],
                    "answer": str(row["answer"]),
                    "group": str(row.get("group") or "all"),
                }
            )
        elif row["messages"] and row["messages"][-1]["role"] == "assistant":
            rows.append(
                {
                    "prompt": row["messages"][:-1],
                    "answer": row["messages"][-1]["content"],
                    "group": "all",
                }
            )
        if limit and len(rows) >= limit:
            break
    if not rows:
        raise StageError(f"{ctx.step}: {ctx.one(name).name} holds no problems to practise on")
    return rows


@dataclass
class Prompts(Prepared):
    """Prepared prompts, and the problems among them that leave ``room`` tokens of the model's context to the prompt."""

    problems: list[dict[str, Any]] = field(default_factory=list)
    room: float = math.inf


def prepare(ctx: Context, limit: int, max_completion_length: int) -> Prompts:
    """The prompts and their gates. Nothing of them is supervised: the loss is on answers, which are not there yet."""
    from llmstages.text import chat_format
    from llmstages.text.render import Rendered
    from llmstages.train import checks
    from llmstages.train.trainer import context_length, load_tokenizer

    tokenizer, source = load_tokenizer(ctx.one("policy").path), ctx.one("problems")
    rows, context = problems(ctx, "problems", limit), context_length(ctx.one("policy"))
    room = context - max_completion_length if context else math.inf
    asked = [Dialogue(f"{source.name}:{i}", row["prompt"]) for i, row in enumerate(rows)]
    ids = chat_format.prompt_ids(tokenizer, [d.messages for d in asked])
    long = [d.name for d, one in zip(asked, ids, strict=True) if len(one) > room]
    found = [
        checks.check_left_out(
            long, len(rows), "lower max_completion_length, or pretrain with a larger context"
        ),
        *checks.check_dialogue_template(asked, tokenizer),
    ]
    return Prompts(
        tokenizer,
        [Rendered(one, [False] * len(one)) for one in ids],
        [d.name for d in asked],
        found,
        {"prompts": len(rows), "too long": len(long)},
        problems=[row for row, one in zip(rows, ids, strict=True) if len(one) <= room],
        room=room,
    )


def fitting(prompts: Prompts, ctx: Context) -> list[dict[str, Any]]:
    """The problems that leave room for an answer; the others are dropped and counted."""
    if left := prompts.facts["too long"]:
        ctx.say(
            f"{ctx.step}: {left} of {len(prompts.rows)} problems dropped, prompts longer than {prompts.room} tokens"
        )
    if not prompts.problems:
        raise StageError(
            f"{ctx.step}: every prompt is longer than the {prompts.room} tokens the model's context leaves; pretrain with a larger context"
        )
    return prompts.problems


def open_rewards(specs: Mapping[str, Any], model: Artifact | None, step: str) -> dict[str, Any]:
    """name -> reward, opened where it needs the reward model of the recipe."""
    from llmstages.core.registry import load_component

    if not specs:
        raise StageError(
            f"{step}.rewards is empty: there is nothing to optimise. Add one, e.g. +rewards@{step}.rewards.right=exact_answer"
        )
    opened = {}
    for name, spec in specs.items():
        reward = load_component("rewards", spec)
        if getattr(reward, "needs", "") == "reward_model":
            if model is None:
                raise StageError(
                    f"{step}: the reward {name!r} needs a reward model; wire steps.{step}.reward=reward"
                )
            reward.open(model)
        opened[name] = reward
    return opened


def reward_functions(rewards: Mapping[str, Any], tokenizer: Any) -> list[Any]:
    """TRL reward functions. Answers are parsed from the completion's ids, not from text with its control tokens dropped."""
    from llmstages.text import chat_format

    def wrap(name: str, reward: Any) -> Any:
        def function(
            prompts: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
        ) -> list[float]:
            said = [chat_format.parse_reply(tokenizer, ids)[0] for ids in completion_ids]
            texts = [
                "" if one["tool"] else str(one["content"]) for one in said
            ]  # the argument of a call is no answer
            return reward.score(prompts, texts, columns)

        function.__name__ = name
        return function

    return [wrap(name, reward) for name, reward in rewards.items()]


def safe_trainer() -> type:
    """GRPOTrainer whose prompts come from the one renderer, and whose order of prompts can be taken up again."""
    import torch
    from trl import GRPOTrainer

    from llmstages.text import chat_format

    class SafeGRPOTrainer(GRPOTrainer):
        def _tokenize_prompts(
            self, prompts: list[Any]
        ) -> tuple[list[list[int]], None, dict[str, Any]]:
            return chat_format.prompt_ids(self.processing_class, prompts), None, {}

        def _get_train_sampler(self, *rest: Any, **more: Any) -> Any:
            self.sampler = super()._get_train_sampler(*rest, **more)
            return self.sampler

        def skip_epochs(self, count: int) -> None:
            """Bring the order of prompts to where it was after so many epochs: TRL's sampler draws on and on from one seed."""
            for _ in range(count):
                torch.randperm(self.sampler.num_samples, generator=self.sampler.generator)

    return SafeGRPOTrainer
