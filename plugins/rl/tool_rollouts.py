"""Tools while answers are sampled: a call is run, its result is put in, and the policy reads on.

It is the ``rollout_func`` of TRL's GRPOTrainer (trl 1.16); rloo_trainer.py gives RLOOTrainer one.
What the policy wrote keeps its own tokens; only what the template writes after them, with the
result, is encoded and added. These tokens carry no loss and no KL (``env_mask``), and no result can
forge a turn, since it goes through the renderer of all stages. The reward sees the last answer
(``said``), "" where there is none, and the number of calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text.messages import Message
from llmstages.text.tool_runs import ToolRuns


@dataclass
class Rollout:
    """One answer in the making.

    Attributes:
        messages: the prompt and all turns so far.
        prompt: ids of the prompt.
        ids: ids after it, of the policy and of results.
        mask: 1 for each id of the policy, 0 for those of results.
        runs: its calls so far.
        said: the last answer.
    """

    messages: list[Message]
    prompt: list[int]
    runs: ToolRuns
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    said: str = ""

    def add(self, ids: Sequence[int], own: bool) -> None:
        """Append ids of the policy (``own``) or of a result."""
        self.ids += ids
        self.mask += [int(own)] * len(ids)


class ToolRollouts:
    """Samples answers with tools, when a trainer asks for them."""

    def __init__(
        self,
        tokenizer: Any,
        tools: Mapping[str, Any],
        *,
        max_calls: int,
        max_tokens: int,
        max_seconds: float = 0.0,
    ) -> None:
        """tools: name -> tool; max_calls, max_tokens, max_seconds: of one answer with its calls."""
        self.tokenizer = tokenizer
        self.tools = tools
        self.max_calls = max_calls
        self.max_seconds = max_seconds
        self.max_tokens = max_tokens

    def __call__(self, prompts: Sequence[Sequence[Message]], trainer: Any) -> dict[str, Any]:
        """What TRL asks for: ids of prompts and completions, the mask, and ``said``."""
        from llmstages.text import chat_format
        from llmstages.text.generate import with_schemas

        dialogues = [with_schemas(self.tokenizer, list(prompt), self.tools) for prompt in prompts]
        ids = chat_format.prompt_ids(self.tokenizer, dialogues)
        rollouts = []
        for dialogue, prompt in zip(dialogues, ids, strict=True):
            runs = ToolRuns(self.tools, self.max_calls, self.max_seconds)
            rollouts.append(Rollout(list(dialogue), prompt, runs))
        waiting = rollouts
        while waiting:
            so_far = [rollout.prompt + rollout.ids for rollout in waiting]
            pairs = zip(waiting, trainer.sample(so_far), strict=True)
            waiting = [one for one, new in pairs if self._goes_on(one, new)]
        calls = sum(rollout.runs.calls for rollout in rollouts)
        trainer._log_metric("tools/calls", calls / len(rollouts))
        if calls:
            failed = sum(rollout.runs.failed for rollout in rollouts)
            trainer._log_metric("tools/failures", failed / calls)
        return {
            "prompt_ids": [rollout.prompt for rollout in rollouts],
            "completion_ids": [rollout.ids for rollout in rollouts],
            "logprobs": None,
            "env_mask": [rollout.mask for rollout in rollouts],
            "said": [rollout.said for rollout in rollouts],
            "calls": [rollout.runs.calls for rollout in rollouts],
        }

    def _goes_on(self, rollout: Rollout, written: Sequence[int]) -> bool:
        """Take in what the policy wrote, run its calls, and whether it is to go on."""
        from llmstages.text.replies import parse_turn

        new = list(written[: self.max_tokens - len(rollout.ids)])
        rollout.add(new, own=True)
        turns, ended = parse_turn(self.tokenizer, new)
        calls = [turn for turn in turns if turn["tool"]]
        if not calls:
            rollout.said = str(turns[-1]["content"])
            return False
        results = rollout.runs.run(calls, rollout.messages) if ended else []
        if not results:
            return False
        rollout.messages += turns
        after = self._after_turn(rollout.messages, results)
        rollout.messages += results
        # There must be room for the result and at least one token after it.
        if len(rollout.ids) + len(after) >= self.max_tokens:
            return False
        rollout.add(after, own=False)
        return True

    def _after_turn(self, messages: list[Message], results: list[Message]) -> list[int]:
        """Ids from the end of the policy's turn, whose last messages are calls, to its next."""
        from llmstages.text import chat_format
        from llmstages.text.render import render_answers

        (row,) = render_answers(self.tokenizer, [messages])
        end = len(row.ids)
        while end and not row.supervised[end - 1]:
            end -= 1  # the template may write after the token that ends the turn
        (whole,) = chat_format.prompt_ids(self.tokenizer, [[*messages, *results]])
        if whole[:end] != row.ids[:end]:
            raise StageError(
                "the chat template writes a turn with a call differently once its result follows, "
                "so results cannot be put in while answers are sampled"
            )
        return whole[end:]
