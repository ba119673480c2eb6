"""Rewards on problems that are kept from practice, while the policy trains.

A policy may learn its problems by heart or find a hole in what pays, so paid rewards on practice
say little. Here every reward, also one that is only watched (weight 0), scores answers to problems
that no update sees: proxy and gold of Gao et al. 2023, both held out. The problems are drawn from
practice and never those of the role ``test``, since what is saved may be chosen by them.

Logged are ``signals/held_out_paid`` (the weighted sum), ``signals/held_out_NAME`` of each watched
reward, their spreads (``..._std``) and ``signals/held_out_gap_NAME``: how much further the paid sum
has risen since the first measurement than the watched reward, both in their spreads at that time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data.splits import comparable
from llmstages.plugins.rl import policy, signals
from llmstages.plugins.rl.engine import WHOLE_WEIGHTS
from llmstages.text.environments import has_environment, open_episode


def split(
    problems: Sequence[policy.Problem], number: int, seed: int, ctx: Context
) -> tuple[list[policy.Problem], list[policy.Problem]]:
    """(problems to practice on, problems held out); copies of a held-out one are in neither.

    Raises:
        StageError: no problem would be left for practice.
    """
    if not number:
        return list(problems), []
    first_of: dict[str, policy.Problem] = {}
    for problem in problems:
        first_of.setdefault(_key(problem), problem)
    if number >= len(first_of):
        raise StageError(
            f"{ctx.step}.held_out={number} leaves nothing to practice on: there are "
            f"{len(first_of)} different problems"
        )
    chosen = random.Random(seed).sample(list(first_of), number)
    practice = [problem for problem in problems if _key(problem) not in set(chosen)]
    copies = len(problems) - len(practice) - number
    also = f" ({copies} copies of them are left out)" if copies else ""
    ctx.say(f"{ctx.step}: {number} of {len(problems)} problems are held out of practice{also}")
    return practice, [first_of[key] for key in chosen]


def _key(problem: policy.Problem) -> str:
    """What makes a problem another one; episodes of environments may begin with the same words."""
    seed = str(problem["meta"]) if has_environment(problem) else ""
    return comparable(policy.text_of(problem["prompt"])) + seed


def watch(
    trainer: Any, problems: Sequence[policy.Problem], rewards: Mapping[str, Any], config: Any
) -> None:
    """Let a trainer measure its policy every ``held_out_steps`` updates, if there are problems.

    The first measurement belongs to the first log line, so that later ones have a beginning. Each
    process measures all problems, since all must do the same.

    Raises:
        StageError: the weights are spread over processes, which cannot sample by themselves.
    """
    from transformers import TrainerCallback

    if not problems:
        return
    if trainer.accelerator.distributed_type not in WHOLE_WEIGHTS:
        raise StageError(
            "held_out needs the whole policy in each process; take launch=ddp or single, or "
            "held_out=0"
        )

    rollouts = getattr(trainer, "rollout_func", None)  # a trainer may sample single answers alone
    tools = rollouts.tools if rollouts else {}

    class HeldOut(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            is_first = state.global_step == config.log_every
            if not is_first and state.global_step % config.held_out_steps:
                return
            measured = measure(trainer, problems, rewards, config, tools)
            measured |= gaps(state.log_history, measured, _watched(rewards))
            # They stand in the row that is logged after this update, and in no other.
            for name, value in measured.items():
                trainer._metrics["train"][name].append(value)

    trainer.add_callback(HeldOut())


def measure(
    trainer: Any,
    problems: Sequence[policy.Problem],
    rewards: Mapping[str, Any],
    config: Any,
    tools: Mapping[str, Any],
) -> dict[str, float]:
    """Sample an answer to each problem: logged name -> mean and spread of what rewards say.

    Training neither sees the random numbers that are drawn here nor changes them.
    """
    import torch

    from llmstages.text import generate

    model = trainer.accelerator.unwrap_model(trainer.model)
    episodes = [open_episode(problem) for problem in problems]
    was_training = model.training
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        replies = generate.reply(
            model,
            trainer._tokenizer,
            [problem["prompt"] for problem in problems],
            tools or None,
            max_calls=config.max_tool_calls,
            max_tool_seconds=config.max_tool_seconds,
            episodes=episodes,
            temperature=config.temperature,
            max_new_tokens=config.max_completion_length,
        )
    model.train(was_training)
    asked = policy.with_outcomes(problems, replies, episodes, bool(tools))
    texts = [reply.text for reply in replies]
    scores = {
        name: policy.score_completions(name, reward, asked, texts)
        for name, reward in rewards.items()
    }
    paid = policy.weighted_sums(rewards, scores)
    measured = _moments("paid", [total for total in paid if not math.isnan(total)])
    for name in _watched(rewards):
        measured |= _moments(name, [score for score in scores[name] if score is not None])
    return measured


def _watched(rewards: Mapping[str, Any]) -> list[str]:
    return [name for name, reward in rewards.items() if not reward.config.weight]


def _moments(name: str, values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation under their logged names; {} where there are no values."""
    if not values:
        return {}
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    key = signals.held_out_key(name)
    return {key: mean, f"{key}_std": math.sqrt(variance)}


def gaps(
    log: Sequence[Mapping[str, Any]], measured: Mapping[str, float], watched: Sequence[str]
) -> dict[str, float]:
    """The gap between the paid sum and each watched reward (see above), by its logged name.

    Args:
        log: the rows so far.
        measured: of measure(), now.
        watched: names of the rewards of weight 0.
    """
    paid = signals.held_out_key("paid")
    found = {}
    for name in watched:
        gold = signals.held_out_key(name)
        if paid in measured and gold in measured:
            gap = _rise(log, measured, paid) - _rise(log, measured, gold)
            found[signals.held_out_key(f"gap_{name}")] = gap
    return found


def _rise(log: Sequence[Mapping[str, Any]], measured: Mapping[str, float], key: str) -> float:
    """How far a series has risen since it was first logged, in its spread at that time (if any)."""
    first = next((row for row in log if row.get(key) is not None), measured)
    spread = first[f"{key}_std"]
    return (measured[key] - first[key]) / spread if spread else 0.0
