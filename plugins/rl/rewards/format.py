"""reward format: 1 if the whole answer has a given form, else 0.

The default form is that of DeepSeek-R1 (2025, section 2.2.2): reasoning between <think> tags, then
the answer. Alone it pays for the form and nothing else, so it belongs beside a verifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option

THINKING = r"\s*<think>(?:(?!</?think>).)+</think>(?:(?!</?think>).)*\S(?:(?!</?think>).)*"


@dataclass(frozen=True)
class FormatConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")
    pattern: str = option(
        THINKING, "regular expression for the whole answer; a dot also takes line ends"
    )

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from error


class Format:
    """Whether an answer has a form."""

    Config = FormatConfig
    version = "1"

    def __init__(self, config: FormatConfig) -> None:
        self.config = config
        self.form = re.compile(config.pattern, re.DOTALL)

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """1.0 or 0.0 for each completion."""
        return [float(bool(self.form.fullmatch(completion))) for completion in completions]
