"""How large a difference an evaluation can tell from chance, before it runs.

The formula for two independent shares (Fleiss, Levin and Paik 2003, chapter 4, without continuity
correction), two-sided at 5 %, found in 80 % of all cases, at the worst case of shares around a
half. Models that answer the same questions are told apart with fewer, the more they agree.
"""

from __future__ import annotations

import math

Z_TWO_SIDED = 1.959964  # 5 %
Z_POWER = 0.841621  # 80 %
VARIANCE = 0.25  # of one answer where half of them are right
WANTED = 0.05  # a difference that most comparisons are about


def smallest_difference(questions: int) -> float:
    """The difference of two shares that so many questions for each of two models tell apart."""
    return (Z_TWO_SIDED + Z_POWER) * math.sqrt(2 * VARIANCE / questions)


def questions_for(difference: float) -> int:
    """How many questions, for each of two models, tell a difference of shares apart."""
    return math.ceil(2 * VARIANCE * ((Z_TWO_SIDED + Z_POWER) / difference) ** 2)


def facts(questions: int) -> dict[str, float]:
    """What a plan says about an evaluation of so many questions, in all its groups together."""
    return {"questions": questions, "smallest_difference": smallest_difference(questions)}


def describe(questions: int) -> str:
    """One sentence for the plan."""
    least = smallest_difference(questions)
    return (
        f"power: {questions:,} questions in all tell shares apart that differ by {least:.2f} or "
        f"more (found in 80 % of cases at 5 %, shares near a half; a group of them tells less); "
        f"{WANTED} takes {questions_for(WANTED):,}"
    )
