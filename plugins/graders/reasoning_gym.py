"""grader reasoning_gym: the score of the problem's own task in reasoning-gym, if it is full.

The entry is rebuilt from the row alone. A part of a score is not paid: some scorers give a share
to any text that contains the answer. Only scorers that treat the answer as data are asked
(plugins/problems/reasoning_gym.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data.reasoning_tasks import BROKEN, RUNS_ANSWERS
from llmstages.text import grading

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)*(?!\w)")


@dataclass(frozen=True)
class ReasoningGymConfig:
    pass


class ReasoningGym:
    """The scorer of the problem's task."""

    Config = ReasoningGymConfig
    version = "1"

    def __init__(self, config: ReasoningGymConfig) -> None:
        self.config = config

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool | None]:
        """Whether the final answer of each reply has a full score."""
        return [_is_right(reply, row) for reply, row in zip(replies, rows, strict=True)]


def _is_right(reply: str, row: Mapping[str, Any]) -> bool:
    meta = json.loads(row.get("meta") or "{}")
    if "task" not in meta or "metadata" not in meta:
        # A problem of elsewhere: the answer alone decides.
        return grading.own_part(reply).strip() == str(row["answer"]).strip()
    entry = {
        "question": meta["question"],
        "answer": str(row["answer"]),
        "metadata": meta["metadata"],
    }
    scorer = _scorer(meta["task"])
    # Exactly 1: sums of shares pass it by rounding where an answer only begins with the right one.
    return any(_score(scorer, answer, entry) == 1.0 for answer in final_answers(reply, row))


def final_answers(reply: str, row: Mapping[str, Any]) -> Iterator[str]:
    """What the reply may mean by its final answer: all of it, its last line, its last number.

    Only the end counts, so a reply that lists candidates gives its last one.
    """
    own = grading.own_part(reply).strip()
    if not own:
        return
    yield own
    last_line = own.splitlines()[-1].strip()
    yield last_line
    declared = grading.DECLARED.split(last_line)
    yield declared[-1].strip().strip("*_`$ ").rstrip(".!")
    numbers = NUMBER.findall(own)
    if numbers and NUMBER.fullmatch(str(row["answer"]).strip()):
        yield numbers[-1]


def _score(scorer: Any, answer: str, entry: Mapping[str, Any]) -> float:
    try:
        return float(scorer.score_answer(answer=answer, entry=entry))
    except Exception:  # some scorers raise anything on a text that they cannot read
        return 0.0


@cache
def _scorer(task: str) -> Any:
    if task in RUNS_ANSWERS | BROKEN:
        raise StageError(f"the scorer of {task} is not asked: it runs or pays for any text")
    try:
        import reasoning_gym
    except ImportError as error:
        raise StageError(
            'the grader reasoning_gym needs its package: pip install "llmstages[reasoning_gym]"'
        ) from error
    return reasoning_gym.create_dataset(task, size=1, seed=0)
