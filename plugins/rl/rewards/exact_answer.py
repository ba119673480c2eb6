"""reward exact_answer: 1 if the final answer is right, else 0.

A verifier in the sense of RLVR (Lambert et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option
from llmstages.text.grading import is_right


@dataclass(frozen=True)
class ExactAnswerConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")


class ExactAnswer:
    """Right or wrong."""

    Config = ExactAnswerConfig
    version = "3"

    def __init__(self, config: ExactAnswerConfig) -> None:
        self.config = config

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """1.0 or 0.0 for each completion; rows have ``answer``, and may have ``aliases``."""
        aliases = rows.get("aliases") or [()] * len(completions)
        scores = []
        for text, answer, others in zip(completions, rows["answer"], aliases, strict=True):
            scores.append(float(is_right(text, {"answer": answer, "aliases": others})))
        return scores
