"""The answers of one round of rejection sampling, made in parts that survive an interruption.

A part is a few problems with all their answers. It has a seed of its own and is written as soon as
it is scored, so an interrupted round samples only what is missing, and any number of processes
makes the same answers. Left out: parts of weights that are spread over processes (ZeRO-3, FSDP).
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.plugins.rl import policy
from llmstages.text.environments import open_episode


@dataclass(frozen=True)
class Attempt:
    """One sampled answer and what it is paid.

    Attributes:
        problem: its place among the problems of the round.
        said: what the policy and its tools said, as messages.
        ended: whether the last answer ended its turn.
        paid: the weighted sum of the rewards; None if all paid ones abstained.
    """

    problem: int
    said: list[dict[str, Any]]
    ended: bool
    paid: float | None

    @property
    def text(self) -> str:
        """The last thing that was said."""
        return str(self.said[-1]["content"]) if self.said else ""

    @property
    def calls(self) -> int:
        """The number of tool calls in it."""
        return sum(turn["role"] == "assistant" and bool(turn["tool"]) for turn in self.said)


@dataclass(frozen=True)
class Sampling:
    """How the answers of a step are sampled and paid.

    Attributes:
        ctx: where the step runs.
        config: its options, a RejectionConfig.
        tokenizer: of the policy.
        rewards: name -> opened reward.
        tools: name -> opened tool; None without tools.
        part_size: answers in a part. Another size draws other answers.
    """

    ctx: Context
    config: Any
    tokenizer: Any
    rewards: Mapping[str, Any]
    tools: Mapping[str, Any] | None
    part_size: int

    def sample(
        self, model: Any, problems: Sequence[policy.Problem], folder: Path, number: int
    ) -> list[Attempt]:
        """All answers to the problems of a round, those to one problem beside each other.

        Args:
            model: the policy of the round.
            problems: the problems of the round.
            folder: where parts are kept until the step is done.
            number: of the round, from 1.
        """
        from llmstages.train.distributed import Processes

        start_processes(self.ctx)
        folder.mkdir(parents=True, exist_ok=True)
        size = max(1, self.part_size // self.config.num_generations)
        parts = range(0, len(problems), size)
        rank = int(os.environ.get("RANK", "0"))
        own = list(enumerate(parts))[rank :: self.ctx.processes]
        title = f"{self.ctx.step} sampling" + (f" {number}" if self.config.rounds > 1 else "")
        made: dict[int, list[Attempt]] = {}
        with self.ctx.progress(title, len(problems) * self.config.num_generations) as advance:
            for part, begin in own:
                asked = range(begin, min(begin + size, len(problems)))
                file = folder / f"answers-{part:04d}.json"
                attempts = _read_part(file)
                if attempts is None:
                    seed = f"{self.config.seed}/{number}/{part}"
                    attempts = self._sample_part(model, problems, asked, seed, advance)
                    _write_part(file, attempts)
                else:
                    advance(len(attempts))
                made[part] = attempts
        everything: dict[int, list[Attempt]] = {}
        for of_process in Processes().gather(made):
            everything |= of_process
        return [attempt for part in sorted(everything) for attempt in everything[part]]

    def _sample_part(
        self,
        model: Any,
        problems: Sequence[policy.Problem],
        places: Sequence[int],
        seed: str,
        advance: Any,
    ) -> list[Attempt]:
        from transformers import set_seed

        from llmstages.text import generate

        set_seed(random.Random(seed).getrandbits(32))
        asked_places = [place for place in places for _ in range(self.config.num_generations)]
        asked = [problems[place] for place in asked_places]
        episodes = [open_episode(problem) for problem in asked]
        replies = generate.reply(
            model,
            self.tokenizer,
            [problem["prompt"] for problem in asked],
            self.tools,
            max_calls=self.config.max_tool_calls if self.tools else 0,
            max_tool_seconds=self.config.max_tool_seconds,
            episodes=episodes,
            temperature=self.config.temperature,
            max_new_tokens=self.config.max_completion_length,
            advance=advance,
        )
        asked = policy.with_outcomes(asked, replies, episodes, bool(self.tools))
        totals = total_rewards(self.rewards, asked, [reply.text for reply in replies])
        return [
            Attempt(place, reply.messages, reply.ended, total)
            for place, reply, total in zip(asked_places, replies, totals, strict=True)
        ]


def start_processes(ctx: Context) -> None:
    """Let the processes of the step find each other, before a Trainer would."""
    if ctx.processes == 1:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())


def total_rewards(
    rewards: Mapping[str, Any], problems: Sequence[policy.Problem], completions: Sequence[str]
) -> list[float | None]:
    """The weighted sum of all rewards, one per completion; None where all paid ones abstained.

    Raises:
        StageError: every reward has weight 0.
    """
    if not any(reward.config.weight for reward in rewards.values()):
        raise StageError("every reward has weight 0, so nothing can be kept; set a weight")
    scores = {
        name: policy.score_completions(name, reward, problems, completions)
        for name, reward in rewards.items()
    }
    sums = policy.weighted_sums(rewards, scores)
    return [total if total == total else None for total in sums]  # NaN is not equal to itself


def _read_part(file: Path) -> list[Attempt] | None:
    """The answers of a part that an interrupted run left; None if there are none."""
    if not file.exists():
        return None
    rows = json.loads(file.read_text(encoding="utf-8"))
    return [Attempt(**row) for row in rows]


def _write_part(file: Path, attempts: Sequence[Attempt]) -> None:
    draft = file.with_suffix(".part")
    rows = [asdict(attempt) for attempt in attempts]
    draft.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    draft.replace(file)  # whole or absent
