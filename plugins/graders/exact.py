"""grader exact: the reply is the answer and nothing else.

For formats and labels, where "The answer is positive." is not what was asked for. Blanks around
the reply do not count, and neither does the form of Unicode (NFC).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.stage import option
from llmstages.text import grading


@dataclass(frozen=True)
class ExactConfig:
    ignore_case: bool = option(False, "whether Positive is positive")
    ignore_period: bool = option(False, "whether a period at the end does not count")


class Exact:
    """The reply is the answer and nothing else."""

    Config = ExactConfig
    version = "1"

    def __init__(self, config: ExactConfig) -> None:
        self.config = config

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each reply equals one of the answers of its problem."""
        return [
            self._form(reply) in [self._form(answer) for answer in grading.accepted(row)]
            for reply, row in zip(replies, rows, strict=True)
        ]

    def _form(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text).strip()
        if self.config.ignore_period:
            text = text.removesuffix(".").rstrip()
        return text.casefold() if self.config.ignore_case else text
