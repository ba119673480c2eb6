"""reward repetition: 0 if no run of words occurs twice in an answer, near -1 if one is all of it.

The penalty of Yeo et al. 2025 ("Demystifying Long Chain-of-Thought", section 4.2) as a share of the
n-grams, so that it does not depend on the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option


@dataclass(frozen=True)
class RepetitionConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")
    words: int = option(3, "words in a run", ge=1)


class Repetition:
    """A penalty for answers that repeat themselves."""

    Config = RepetitionConfig
    version = "1"

    def __init__(self, config: RepetitionConfig) -> None:
        self.config = config

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """From 0.0 to nearly -1.0 for each completion."""
        return [-repeated_share(completion, self.config.words) for completion in completions]


def repeated_share(text: str, length: int) -> float:
    """Share of the runs of ``length`` words that occurred before in the text."""
    words = text.lower().split()
    runs = [tuple(words[begin : begin + length]) for begin in range(len(words) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
