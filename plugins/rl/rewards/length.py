"""reward length: 0 for an answer of acceptable length, falling to -1 for one that is too long.

The soft overlong punishment of DAPO (Yu et al. 2025, equation 13), counted in characters, since a
reward sees texts: the last ``margin`` characters before ``longest`` cost more and more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option


@dataclass(frozen=True)
class LengthConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")
    longest: int = option(1000, "characters of an answer from which it is paid -1", ge=1)
    margin: int = option(200, "characters before that over which the reward falls from 0", ge=1)

    def __post_init__(self) -> None:
        if self.margin > self.longest:
            raise ValueError(f"margin={self.margin} must not be above longest={self.longest}")


class Length:
    """A penalty for long answers."""

    Config = LengthConfig
    version = "1"

    def __init__(self, config: LengthConfig) -> None:
        self.config = config

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """From 0.0 to -1.0 for each completion."""
        free = self.config.longest - self.config.margin
        over = [(len(completion) - free) / self.config.margin for completion in completions]
        return [-min(max(share, 0.0), 1.0) for share in over]
