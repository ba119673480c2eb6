"""Dialogues while answers are sampled: a call is run, or an environment reads what was said, what
they return is put in, and the policy reads on.

It is the ``rollout_func`` of TRL's GRPOTrainer (trl 1.16); rloo_trainer.py gives RLOOTrainer one.
What the policy wrote keeps its own tokens; only what the template writes after them, with the
result or the observation, is encoded and added. These tokens carry no loss and no KL
(``env_mask``), and no such text can forge a turn, since it goes through the renderer of all stages.
The reward sees the last answer (``said``), "" where there is none, the number of calls, and what an
environment paid (``earned``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.text.environments import Episode, has_environment, open_episode, require_working
from llmstages.text.messages import Message
from llmstages.text.tool_runs import ToolRuns, what_follows


@dataclass
class Rollout:
    """One answer in the making.

    Attributes:
        messages: the prompt and all turns so far.
        prompt: ids of the prompt.
        ids: ids after it, of the policy, and of results and observations.
        mask: 1 for each id of the policy, 0 for the others.
        runs: its calls so far.
        episode: of its problem's environment, None where it has none.
        said: the last answer.
    """

    messages: list[Message]
    prompt: list[int]
    runs: ToolRuns
    episode: Episode | None = None
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    said: str = ""

    def add(self, ids: Sequence[int], own: bool) -> None:
        """Append ids of the policy (``own``), or of a result or an observation."""
        self.ids += ids
        self.mask += [int(own)] * len(ids)


class ToolRollouts:
    """Samples answers with tools and in environments, when a trainer asks for them."""

    def __init__(
        self,
        tokenizer: Any,
        tools: Mapping[str, Any],
        *,
        max_calls: int,
        max_tokens: int,
        max_seconds: float = 0.0,
        problems: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Args:
        tools: name -> tool.
        max_calls, max_tokens, max_seconds: of one answer with its calls and observations.
        problems: those that the trainer draws from, of which some have environments; () for none.
        """
        self.tokenizer = tokenizer
        self.tools = tools
        self.max_calls = max_calls
        self.max_seconds = max_seconds
        self.max_tokens = max_tokens
        self.problems = problems

    def __call__(self, prompts: Sequence[Sequence[Message]], trainer: Any) -> dict[str, Any]:
        """What TRL asks for: ids of prompts and completions, the mask, and ``said``."""
        from llmstages.text import chat_format
        from llmstages.text.generate import with_schemas

        dialogues = [with_schemas(self.tokenizer, list(prompt), self.tools) for prompt in prompts]
        ids = chat_format.prompt_ids(self.tokenizer, dialogues)
        rollouts = []
        episodes = self._episodes(len(prompts), trainer)
        for dialogue, prompt, episode in zip(dialogues, ids, episodes, strict=True):
            runs = ToolRuns(self.tools, self.max_calls, self.max_seconds)
            rollouts.append(Rollout(list(dialogue), prompt, runs, episode))
        waiting = rollouts
        while waiting:
            so_far = [rollout.prompt + rollout.ids for rollout in waiting]
            pairs = zip(waiting, trainer.sample(so_far), strict=True)
            waiting = [one for one, new in pairs if self._goes_on(one, new)]
        completed = {
            "prompt_ids": [rollout.prompt for rollout in rollouts],
            "completion_ids": [rollout.ids for rollout in rollouts],
            "logprobs": None,
            "env_mask": [rollout.mask for rollout in rollouts],
            "said": [rollout.said for rollout in rollouts],
        }
        if self.tools:
            _log_calls(rollouts, trainer)
            completed["calls"] = [rollout.runs.calls for rollout in rollouts]
        if self.problems:
            _log_episodes(episodes, trainer)
            completed["earned"] = [episode.score if episode else None for episode in episodes]
        return completed

    def _episodes(self, count: int, trainer: Any) -> Sequence[Episode | None]:
        """A fresh episode for each prompt that the trainer samples from, None for plain ones."""
        if not self.problems:
            return [None] * count
        return [open_episode(self.problems[number]) for number in trainer.sampled_problems]

    def _goes_on(self, rollout: Rollout, written: Sequence[int]) -> bool:
        """Take in what the policy wrote and what follows it, and whether it is to go on."""
        from llmstages.text.replies import parse_turn

        new = list(written[: self.max_tokens - len(rollout.ids)])
        rollout.add(new, own=True)
        turns, ended = parse_turn(self.tokenizer, new)
        if not turns[-1]["tool"]:
            rollout.said = str(turns[-1]["content"])
        if not ended:
            return False
        following = what_follows(turns, rollout.messages, rollout.runs, rollout.episode)
        if not following:
            return False
        rollout.messages += turns
        after = self._after_turn(rollout.messages, following)
        rollout.messages += following
        # There must be room for what follows and at least one token after it.
        if len(rollout.ids) + len(after) >= self.max_tokens:
            return False
        rollout.add(after, own=False)
        return True

    def _after_turn(self, messages: list[Message], following: list[Message]) -> list[int]:
        """Ids from the end of the policy's last turn, through what follows, to its next."""
        from llmstages.text import chat_format
        from llmstages.text.render import render_answers

        (row,) = render_answers(self.tokenizer, [messages])
        end = len(row.ids)
        while end and not row.supervised[end - 1]:
            end -= 1  # the template may write after the token that ends the turn
        (whole,) = chat_format.prompt_ids(self.tokenizer, [[*messages, *following]])
        if whole[:end] != row.ids[:end]:
            raise StageError(
                "the chat template writes a turn of the assistant differently once a "
                f"{following[0]['role']} turn follows, so none can be put in while answers are "
                "sampled"
            )
        return whole[end:]


def _log_calls(rollouts: Sequence[Rollout], trainer: Any) -> None:
    """Log calls for each answer, and the share of them that failed."""
    calls = sum(rollout.runs.calls for rollout in rollouts)
    trainer._log_metric("tools/calls", calls / len(rollouts))
    if calls:
        failed = sum(rollout.runs.failed for rollout in rollouts)
        trainer._log_metric("tools/failures", failed / calls)


def _log_episodes(episodes: Sequence[Episode | None], trainer: Any) -> None:
    """Log turns and ends of the episodes; raises StageError where too many failed."""
    trainer._log_metric("environment/failures", require_working(episodes))
    opened = [episode for episode in episodes if episode]
    if opened:
        turns = sum(episode.turns for episode in opened)
        trainer._log_metric("environment/turns", turns / len(opened))
        done = sum(episode.done for episode in opened)
        trainer._log_metric("environment/done", done / len(opened))


def rollout_arguments(
    config: Any, ctx: Context, tokenizer: Any, problems: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The arguments of a trainer for tools that are wired in and environments of problems.

    {} without any, since the trainer then samples by itself.
    """
    from llmstages.text import generate

    artifact = ctx.maybe("tools")
    acting = any(map(has_environment, problems))
    if not artifact and not acting:
        return {}
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    rollouts = ToolRollouts(
        tokenizer,
        generate.open_tools(artifact.path) if artifact else {},
        max_calls=config.max_tool_calls if artifact else 0,
        max_seconds=config.max_tool_seconds,
        max_tokens=config.max_completion_length,
        problems=problems if acting else (),
    )
    return {"rollout_func": rollouts}
