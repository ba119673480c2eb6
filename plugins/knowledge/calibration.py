"""How well the agreement of a model's answers tells whether they are right.

A model that knows a fact says the same each time (Kadavath et al. 2022; Llama 3, Dubey et al. 2024,
section 4.3.6). Agreement needs no right answer, so it can be measured for any question; how far it
can be trusted is measured here on questions that have one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmstages.data.splits import comparable
from llmstages.text.grading import are_right, is_refusal

MOST_BINS = 10
EDGES = re.compile(r"^\W+|\W+$")


def clusters(texts: Sequence[str]) -> list[int]:
    """For each answer the place of the answer that it agrees with, at most its own.

    Two answers agree if they are equal but for case, blanks and marks at their ends, if both
    refuse, or if one, taken as the right answer, is given by the other: "Paris" and "It is Paris.".
    The right answer itself plays no part.
    """
    keys = [EDGES.sub("", comparable(text)) for text in texts]
    found = [-1] * len(texts)
    leaders: list[int] = []
    # The shorter answer is the one that a longer one may give.
    for place in sorted(range(len(texts)), key=lambda place: (len(keys[place]), place)):
        leader = next((old for old in leaders if _agree(texts, keys, old, place)), place)
        if leader == place:
            leaders.append(place)
        found[place] = leader
    return found


def _agree(texts: Sequence[str], keys: Sequence[str], leader: int, place: int) -> bool:
    if keys[leader] == keys[place]:
        return True
    refusals = [is_refusal(texts[leader]), is_refusal(texts[place])]
    if any(refusals) or not keys[leader]:
        return all(refusals)
    return are_right([texts[place]], [{"answer": texts[leader].strip()}])[0]


def agreement(texts: Sequence[str]) -> tuple[float, int]:
    """(share of the answers that agree with the commonest one, the place of that one).

    Of answers that are equally common it is the first.
    """
    found = clusters(texts)
    leader = max(found, key=lambda leader: (found.count(leader), -found.index(leader)))
    return found.count(leader) / len(texts), found.index(leader)


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The probability that a positive one has the higher score, ties counted as half.

    None without a positive or a negative one (the statistic of Mann and Whitney).
    """
    highs = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    lows = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    if not highs or not lows:
        return None
    # Scores are shares of a few answers, so there are few different ones.
    wins = 0.0
    for value in set(highs):
        below = sum(low < value for low in lows) + sum(low == value for low in lows) / 2
        wins += highs.count(value) * below
    return wins / (len(highs) * len(lows))


def curve(scores: Sequence[float], right: Sequence[bool]) -> list[dict[str, Any]]:
    """Score against share right: one bin for each tenth that holds a score, from low to high.

    Returns:
        rows with ``agreement`` (mean score of the bin), ``right`` (share) and ``n``.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, is_right in zip(scores, right, strict=True):
        # The tolerance keeps 0.3 = 3/10 in its bin, whatever the rounding error.
        place = min(int(score * MOST_BINS + 1e-9), MOST_BINS - 1)
        bins.setdefault(place, []).append((score, is_right))
    rows = []
    for _, members in sorted(bins.items()):
        number = len(members)
        agreement = sum(score for score, _ in members) / number
        share_right = sum(is_right for _, is_right in members) / number
        rows.append({"agreement": agreement, "right": share_right, "n": number})
    return rows


def expected_error(bins: Sequence[dict[str, Any]]) -> float:
    """The expected calibration error: the mean distance of agreement and share right, by size.

    Naeini et al. 2015; Guo et al. 2017, section 2.
    """
    total = sum(row["n"] for row in bins)
    return sum(row["n"] * abs(row["agreement"] - row["right"]) for row in bins) / total


def lowest_sure(shares: Sequence[float], again: Sequence[bool], wanted: float) -> float | None:
    """The least share right from which one more answer is right in ``wanted`` of the cases.

    Args:
        shares: the share of right answers to each question.
        again: whether one more answer was right, which the share did not count.
        wanted: the share of questions, from the returned share on, with one more right answer.

    Returns:
        None if no share, however high, gives that.
    """
    for limit in sorted(set(shares) - {0.0}):
        later = [is_right for share, is_right in zip(shares, again, strict=True) if share >= limit]
        if sum(later) >= wanted * len(later):
            return limit
    return None
