"""The calls of one conversation: each is run within a budget, and only if it is allowed.

Chat, evaluation and sampling in RL run calls in this one way: plan, act, observe, until the model
answers or the budget is spent. Where the problem has an environment, an answer is an action in it,
and what it observes is the next turn of the user (``what_follows``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llmstages.core.errors import StageError
from llmstages.text.environments import Episode
from llmstages.text.messages import Message, message

Tools = Mapping[str, Callable[[str], str]]
FAILED = "error:"  # how the result of a call begins that failed
NOT_ALLOWED = f"{FAILED} the user did not allow this call"
# confirm(tool, argument): whether a call may be run
Confirm = Callable[[str, str], bool]


@dataclass
class ToolRuns:
    """Runs calls and counts them.

    Attributes:
        tools: name -> tool.
        max_calls: of the whole conversation.
        max_seconds: of all its calls together, by the clock; 0 = any number.
        confirm: asked before each call; None allows all.
        calls, failed, seconds: what was run so far.
    """

    tools: Tools
    max_calls: int
    max_seconds: float = 0.0
    confirm: Confirm | None = None
    calls: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def spent(self) -> str:
        """Which part of the budget is spent, "" while calls may be run."""
        if self.calls >= self.max_calls:
            return f"{self.max_calls} tool calls"
        if self.max_seconds and self.seconds >= self.max_seconds:
            return f"{self.max_seconds:g} seconds of tool calls"
        return ""

    def run(self, calls: Sequence[Message], before: Sequence[Message]) -> list[Message]:
        """The results of calls that were made at once, in order; [] if the budget is spent.

        Args:
            calls: turns of the assistant.
            before: the turns of the conversation before them.
        """
        if self.spent:
            return []
        return [self._run_one(call["tool"], str(call["content"]), before) for call in calls]

    def _run_one(self, tool: str, argument: str, before: Sequence[Message]) -> Message:
        start = time.monotonic()
        if self.confirm is not None and not self.confirm(tool, argument):
            result = NOT_ALLOWED
        else:
            # Only the call counts, not the time that somebody took to allow it.
            start = time.monotonic()
            result = call_tool(self.tools, tool, argument, before)
        self.seconds += time.monotonic() - start
        self.calls += 1
        self.failed += result.startswith(FAILED)
        return message("tool", result, tool)


def what_follows(
    turns: Sequence[Message],
    before: Sequence[Message],
    runs: ToolRuns,
    episode: Episode | None,
) -> list[Message]:
    """What follows a turn of the assistant that ended: results of its calls, or an observation.

    It is [] where the dialogue ends: with an answer, or with a budget that is spent.

    Args:
        turns: the messages of the turn (replies.parse_turn).
        before: the messages before it.
        runs: runs the calls.
        episode: of the environment that reads the answers; None: an answer is the end.
    """
    calls = [turn for turn in turns if turn["tool"]]
    if calls:
        return runs.run(calls, before)
    return episode.after(str(turns[-1]["content"])) if episode else []


def call_tool(tools: Tools, name: str, argument: str, conversation: Sequence[Message] = ()) -> str:
    """Run one tool; an error becomes the text of its result.

    Args:
        tools: name -> tool.
        name: of the tool that is called.
        argument: a text, or the JSON object of arguments that models from elsewhere write.
        conversation: the turns before the call, for tools that build on their earlier calls.

    Raises:
        StageError: the tool cannot be used at all, whatever it is asked.
    """
    if name not in tools:
        return f"error: there is no tool {name}"
    tool = tools[name]
    if not getattr(tool, "schema", None):
        argument = single_argument(argument)
    call_after = getattr(tool, "call_after", None)
    try:
        if call_after is None:
            return tool(argument)
        calls = [turn for turn in conversation if turn["role"] == "assistant"]
        return call_after(argument, [turn["content"] for turn in calls if turn["tool"] == name])
    except StageError:
        raise
    # A tool is foreign code, so it may raise anything. The model gets to see the error.
    except Exception as error:
        return f"error: {error}"


def single_argument(text: str) -> str:
    """The value of a JSON object with one key; any other text as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict) or len(value) != 1:
        return text
    return str(next(iter(value.values())))
