"""reward tool_calls: what calling tools costs, for a policy that should not call without need.

Its score is the number of calls of an answer and its weight is below 0. A right answer without a
call is then worth more than one with it, and both are worth more than a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import option


@dataclass(frozen=True)
class ToolCallsConfig:
    weight: float = option(-0.1, "what a call adds to the reward; below 0 it is a price")


class ToolCalls:
    """The number of calls that were run for an answer."""

    Config = ToolCallsConfig
    version = "1"

    def __init__(self, config: ToolCallsConfig) -> None:
        self.config = config

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """The number of calls of each answer. Raises StageError if no tools are wired in."""
        if "calls" not in rows:
            raise StageError(
                "the reward tool_calls counts calls, and this policy has no tools; wire "
                "steps.rl.tools=tools, or leave the reward out"
            )
        return [float(number) for number in rows["calls"]]
