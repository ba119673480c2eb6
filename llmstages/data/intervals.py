"""How far a share measured on a few questions may be from the true one."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z_95 = 1.959964  # standard deviations that hold 95 % of a normal distribution


def wilson(successes: float, number: float, z: float = Z_95) -> tuple[float, float]:
    """The interval of Wilson (1927) for a share: (low, high).

    Unlike the share plus or minus its standard error it stays within 0 and 1, and has a width
    where every question was answered right.

    Raises:
        ValueError: there are no trials.
    """
    if number < 1:
        raise ValueError("an interval needs at least one trial")
    share = successes / number
    weight = z * z / number
    center = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / number + weight / (4 * number))
    # The ends are exact where rounding would leave 1e-17.
    low = center - half if successes else 0.0
    high = center + half if successes < number else 1.0
    return low, high


def of_mean(values: Sequence[float], z: float = Z_95) -> tuple[float, float]:
    """The interval of a mean by its standard error: (low, high). It holds for dozens of values.

    Raises:
        ValueError: there are fewer than two values, which have no spread.
    """
    if len(values) < 2:
        raise ValueError("the interval of a mean needs at least two values")
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = z * math.sqrt(variance / len(values))
    return mean - half, mean + half


def wilson_of_clusters(
    clusters: Sequence[tuple[float, int]], z: float = Z_95
) -> tuple[float, float]:
    """The interval of a share whose trials come in clusters that depend on each other: (low, high).

    It is Wilson's, for as many trials as would be as informative if they were independent: the
    number of trials over the design effect (Kish 1965), estimated from the spread between clusters;
    never more than there are trials, never fewer than there are clusters, and as many as clusters
    where all trials end alike, since then their spread says nothing.

    Args:
        clusters: (successes, trials) of each, such as the comparisons of one question.

    Raises:
        ValueError: there are no trials.
    """
    used = [cluster for cluster in clusters if cluster[1]]
    successes = sum(cluster[0] for cluster in used)
    number = sum(cluster[1] for cluster in used)
    if not number:
        raise ValueError("an interval needs at least one trial")
    share = successes / number
    independent = share * (1 - share) / number  # variance of the share, were the trials independent
    effective = float(len(used))
    if independent and len(used) > 1:
        squares = sum((won - share * trials) ** 2 for won, trials in used)
        clustered = squares / number**2 * len(used) / (len(used) - 1)
        effective = number * independent / clustered if clustered else number
    effective = min(max(effective, len(used)), number)
    return wilson(share * effective, effective, z)


def of_paired_difference(
    first: Sequence[bool], second: Sequence[bool], z: float = Z_95
) -> tuple[float, float]:
    """The interval of a difference of two shares of the same questions, first minus second.

    Newcombe 1998 ("Improved confidence intervals for the difference between binomial proportions
    based on paired data", method 10): Wilson's intervals of both shares, joined with regard to how
    far the answers go together. With a continuity correction to the correlation, as there.

    Args:
        first, second: whether each question was answered right, in the same order.
        z: standard deviations.

    Raises:
        ValueError: there are no questions, or not as many of both.
    """
    both, only_first, only_second, neither = _table_of_pairs(first, second)
    number = len(first)
    share_first = (both + only_first) / number
    share_second = (both + only_second) / number
    low_first, high_first = wilson(both + only_first, number, z)
    low_second, high_second = wilson(both + only_second, number, z)
    phi = _correlation(both, only_first, only_second, neither)
    difference = share_first - share_second
    down = (share_first - low_first, high_second - share_second)
    up = (high_first - share_first, share_second - low_second)
    below = math.sqrt(max(0.0, down[0] ** 2 - 2 * phi * down[0] * down[1] + down[1] ** 2))
    above = math.sqrt(max(0.0, up[0] ** 2 - 2 * phi * up[0] * up[1] + up[1] ** 2))
    return difference - below, difference + above


def _table_of_pairs(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, int, int]:
    """Questions that both, the first alone, the second alone and neither answered right."""
    if not first or len(first) != len(second):
        raise ValueError("a paired difference needs the same questions of both, at least one")
    pairs = [(bool(one), bool(other)) for one, other in zip(first, second, strict=True)]
    both, only_first = pairs.count((True, True)), pairs.count((True, False))
    only_second, neither = pairs.count((False, True)), pairs.count((False, False))
    return both, only_first, only_second, neither


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Newcombe's phi: how far two answers to one question go together, corrected towards 0."""
    number = both + only_first + only_second + neither
    margins = (
        (both + only_first)
        * (only_second + neither)
        * (both + only_second)
        * (only_first + neither)
    )
    if not margins:
        return 0.0  # one of them answered all or none right
    determinant = both * neither - only_first * only_second
    if determinant > number / 2:
        determinant -= number / 2
    elif determinant >= 0:
        determinant = 0
    return determinant / math.sqrt(margins)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The p-value of McNemar's exact test (1947): could both be right equally often?

    It looks at the questions that one of them alone answered right, of which each should have half.
    """
    _, only_first, only_second, _ = _table_of_pairs(first, second)
    differing = only_first + only_second
    smaller = min(only_first, only_second)
    tail = sum(math.comb(differing, count) for count in range(smaller + 1)) / 2**differing
    return min(1.0, 2 * tail)
