"""reward exact_answer: 1 if the final answer is right, else 0.

A verifier in the sense of RLVR (Lambert et al. 2024). What is right is decided by the grader of
each problem (text/grading.py), the same one as in evaluation. A reply that it cannot decide on is
not paid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option
from llmstages.text.grading import are_right


@dataclass(frozen=True)
class ExactAnswerConfig:
    weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")
    grader: str = option(
        "", "grader of all problems, such as number or math; empty: that of each problem"
    )


class ExactAnswer:
    """Right or wrong."""

    Config = ExactAnswerConfig
    version = "4"

    def __init__(self, config: ExactAnswerConfig) -> None:
        self.config = config

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """1.0 or 0.0 for each completion; rows have ``answer``, and may have ``aliases``."""
        # A grader may look at any column of a problem.
        problems = [
            {name: values[place] for name, values in rows.items()}
            for place in range(len(completions))
        ]
        if self.config.grader:
            problems = [{**problem, "grader": self.config.grader} for problem in problems]
        return [float(right) for right in are_right(completions, problems)]
