"""Strengths from comparisons: against closed forms and published values, and do intervals hold?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmstages.core.errors import StageError
from llmstages.data.bradley_terry import (
    Comparison,
    bootstrap,
    elo,
    fit,
    intervals,
    kendall_tau,
    points_by_prompt,
    rate,
)

HARDLY = 1e-9  # a prior that moves nothing


def comparisons(*counts: tuple[str, str, int, int]) -> list[Comparison]:
    """From (first, second, won by the first, won by the second), each at a prompt of its own."""
    rows = []
    for first, second, won, lost in counts:
        rows += [Comparison(len(rows) + place, first, second, 1.0) for place in range(won)]
        rows += [Comparison(len(rows) + place, first, second, 0.0) for place in range(lost)]
    return rows


def test_two_players_have_the_odds_of_their_wins():
    rows = comparisons(("a", "b", 30, 10))
    strengths = fit(points_by_prompt(rows, ["a", "b"]).sum(axis=0)[None], prior=HARDLY)[0]
    assert strengths[0] - strengths[1] == pytest.approx(math.log(3))
    assert elo(strengths[0]) - elo(strengths[1]) == pytest.approx(400 * math.log10(3))


def test_baseball_has_the_strengths_of_the_literature():
    """Agresti 2002, Categorical Data Analysis, table 10.10: the American League of 1987."""
    teams = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
    won = [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
    strengths = fit(np.array([won], dtype=float), prior=HARDLY)[0]
    published = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]
    assert strengths - strengths[-1] == pytest.approx(published, abs=0.005)
    assert len(teams) == len(strengths)


def test_the_likelihood_is_greatest_there():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 9, (1, 5, 5)).astype(float)
    points[:, range(5), range(5)] = 0

    def likelihood(strengths):
        ahead = strengths[:, None] - strengths[None, :]
        return -(points[0] * np.log1p(np.exp(-ahead))).sum()

    best = fit(points, prior=HARDLY)[0]
    for _ in range(50):
        assert likelihood(best + rng.normal(0, 0.01, 5)) <= likelihood(best)


def test_one_who_never_loses_has_a_finite_strength_and_the_order_stays():
    rows = comparisons(("a", "b", 50, 0), ("b", "c", 50, 0), ("a", "c", 50, 0))
    ranked = rate(rows, ["c", "a", "b"], draws=100)
    assert [row.name for row in ranked] == ["a", "b", "c"]
    assert [row.rank for row in ranked] == [1, 2, 3]
    assert all(math.isfinite(row.high) and row.low <= row.high for row in ranked)
    assert sum(row.strength for row in ranked) == pytest.approx(0, abs=1e-9)


def test_a_tie_is_half_a_win_for_each():
    tied = [Comparison(prompt, "a", "b", 0.5) for prompt in range(10)]
    assert [row.strength for row in rate(tied, ["a", "b"], draws=100)] == pytest.approx([0, 0])
    rows = comparisons(("a", "b", 5, 5))
    assert points_by_prompt(rows, ["a", "b"]).sum(axis=0) == pytest.approx(
        points_by_prompt(tied, ["a", "b"]).sum(axis=0)
    )


def test_groups_that_never_met_are_named():
    rows = comparisons(("a", "b", 2, 1), ("c", "d", 2, 1))
    with pytest.raises(StageError, match=r"a, b; c, d.*Compare more pairs"):
        rate(rows, ["a", "b", "c", "d"])
    with pytest.raises(StageError, match="e"):
        rate(comparisons(("a", "b", 2, 1)), ["a", "b", "e"])
    # A chain is enough: a and c never met.
    assert len(rate(comparisons(("a", "b", 2, 1), ("c", "b", 2, 1)), ["a", "b", "c"])) == 3
    with pytest.raises(StageError, match="one prompt"):
        rate([Comparison(0, "a", "b", 1.0)], ["a", "b"])


def simulated(rng, strengths, prompts):
    """Points by prompt: the better of two answers wins, each answer meets all others."""
    quality = strengths + rng.gumbel(size=(prompts, len(strengths)))
    return (quality[:, :, None] > quality[:, None, :]).astype(float)


def coverage(runs: int, prompts: int, draws: int) -> float:
    strengths = np.linspace(-1, 1, 5)
    held = []
    for run in range(runs):
        points = simulated(np.random.default_rng(run), strengths, prompts)
        low, high = intervals(bootstrap(points, draws, run), prompts)
        held.append((low <= strengths) & (strengths <= high))
    return float(np.mean(held))


def test_intervals_hold_the_true_strengths():
    assert 0.92 <= coverage(runs=150, prompts=60, draws=200) <= 0.98


@pytest.mark.slow
def test_intervals_hold_the_true_strengths_of_many_runs():
    assert 0.93 <= coverage(runs=1000, prompts=100, draws=400) <= 0.97


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 20, "c": 30}, 1.0),
        ({"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 2, "c": 1}, -1.0),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 1, "b": 3, "c": 2, "d": 4}, 4 / 6),
        ({"a": 1, "b": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}, 2 / math.sqrt(6)),
        ({"a": 1, "b": 2, "x": 9}, {"a": 1, "b": 2, "y": 0}, 1.0),
        ({"a": 1, "b": 1}, {"a": 1, "b": 2}, None),
        ({"a": 1}, {"a": 1}, None),
    ],
)
def test_kendall_tau(first, second, tau):
    assert kendall_tau(first, second) == (tau if tau is None else pytest.approx(tau))
    assert kendall_tau(second, first) == (tau if tau is None else pytest.approx(tau))
