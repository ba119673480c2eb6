"""Which of the written dialogues are kept: questions asked before and low scores are dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.data.answer_cache import AnswerCache, Answerer
from llmstages.data.endpoint import Answer
from llmstages.data.formats import InvalidRow
from llmstages.data.readers.examples import Examples
from llmstages.data.readers.record import Rejected
from llmstages.plugins.dialogues import prompts
from llmstages.plugins.dialogues.orders import Order

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near_duplicate"
REPEATED = (DUPLICATE, NEAR_DUPLICATE)
JUDGED = ("score", "unjudged")
EXCERPT = 200  # characters of the questions that a dropped row keeps


def drop_repeated(examples: Examples, max_similarity: float) -> None:
    """Move rows whose questions were asked before to the dropped ones."""
    from llmstages.plugins.dialogues.repeats import find_repeats

    repeats = find_repeats([questions_of(row) for row in examples.kept], max_similarity)
    dropped: dict[int, Rejected] = {}
    for number, (first, similarity) in repeats.items():
        row = examples.kept[number]
        reason = f"{similarity:.2f} like {examples.kept[first]['id']}"
        rule = NEAR_DUPLICATE if similarity < 1 else DUPLICATE
        dropped[number] = Rejected(row["id"], reason, rule, row["url"], f"< {max_similarity:g}")
    _drop(examples, dropped)


def drop_low_scores(
    examples: Examples,
    cache: AnswerCache,
    judge: Answerer,
    orders: Mapping[str, Order],
    guideline: str,
    min_score: int,
) -> None:
    """Ask the judge about each row.

    Its scores become columns of the row. Rows with a score below ``min_score``, or without
    scores, are moved to the dropped ones.
    """
    names = [row["id"] for row in examples.kept]
    requests = [
        prompts.request_scores(guideline, orders[row["id"]], row["messages"])
        for row in examples.kept
    ]
    answers = cache.ask(judge, names, requests, "judging")
    dropped: dict[int, Rejected] = {}
    for number, (row, answer) in enumerate(zip(examples.kept, answers, strict=True)):
        try:
            row.update(judge=judge.name, **_scores_of(answer))
            _require_score(row, min_score)
        except InvalidRow as error:
            limit = f">= {min_score}"
            dropped[number] = Rejected(row["id"], str(error), error.rule, row["url"], limit)
    _drop(examples, dropped)


def _scores_of(answer: Answer) -> dict[str, int]:
    if answer.rule:
        raise InvalidRow("unjudged", f"{answer.rule}: {answer.reason}")
    return prompts.parse_scores(answer.text)


def _require_score(row: Mapping[str, Any], min_score: int) -> None:
    worst = min(prompts.QUALITIES, key=lambda quality: row[quality])
    if row[worst] < min_score:
        raise InvalidRow("score", f"{worst} {row[worst]}")


def _drop(examples: Examples, dropped: Mapping[int, Rejected]) -> None:
    """Move the rows with these numbers."""
    for number, rejected in dropped.items():
        excerpt = questions_of(examples.kept[number])[:EXCERPT]
        examples.dropped.append(rejected.as_dropped(excerpt))
    examples.kept[:] = [row for number, row in enumerate(examples.kept) if number not in dropped]


def questions_of(row: Mapping[str, Any]) -> str:
    """All questions of a row, one per line."""
    return "\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "user")


def fates(examples: Examples, ids: Sequence[str]) -> list[str]:
    """What became of dialogues: ``kept``, or ``dropped: RULE: REASON``."""
    dropped: dict[str, str] = {}
    for row in examples.dropped:
        dropped.setdefault(row["id"], f"dropped: {row['rule']}: {row['value']}")
    return [dropped.get(id, "kept") for id in ids]
