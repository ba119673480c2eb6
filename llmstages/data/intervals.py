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
