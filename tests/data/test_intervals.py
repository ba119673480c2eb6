"""Intervals of shares, against values from the literature."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from llmstages.data import intervals
from llmstages.data.intervals import wilson, wilson_of_clusters


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson(right, number, low, high):
    assert wilson(right, number) == pytest.approx((low, high), abs=1e-4)


def test_more_questions_make_it_narrower():
    widths = [wilson(n / 2, n)[1] - wilson(n / 2, n)[0] for n in (4, 40, 400)]
    assert widths == sorted(widths, reverse=True)


def test_no_trial_has_no_interval():
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_trials_of_a_cluster_that_end_alike_count_as_one():
    alike = [(10.0 * (place % 2), 10) for place in range(40)]
    assert wilson_of_clusters(alike) == pytest.approx(wilson(20, 40), abs=0.005)
    # Each cluster has the same share: as many trials as there are.
    alternating = [(5.0, 10)] * 40
    assert wilson_of_clusters(alternating) == pytest.approx(wilson(200, 400))
    assert wilson_of_clusters([(10.0, 10)] * 20) == pytest.approx(wilson(20, 20))
    assert wilson_of_clusters([(1.0, 1), (0.0, 1), (0.0, 0)]) == pytest.approx(wilson(1, 2))
    with pytest.raises(ValueError, match="at least one"):
        wilson_of_clusters([(0.0, 0)])


def test_the_interval_of_clusters_holds_the_true_share():
    rng = random.Random(0)
    held = 0
    for _ in range(400):
        clusters = []
        for _ in range(40):
            share = rng.betavariate(1.2, 0.8)  # of this cluster; 0.6 in the mean
            clusters.append((float(sum(rng.random() < share for _ in range(8))), 8))
        low, high = wilson_of_clusters(clusters)
        held += low <= 0.6 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_paired_difference_worked_out_by_hand():
    # 20 questions: both right 8, first alone 6, second alone 2, neither 4.
    first, second = answers_of((8, 6, 2, 4))
    low_first, high_first = wilson(14, 20)
    low_second, high_second = wilson(10, 20)
    # 8 * 4 - 6 * 2 = 20, more than 20 / 2, so 10 is taken away; margins 14, 6, 10, 10.
    phi = 10 / (14 * 6 * 10 * 10) ** 0.5
    down = (0.7 - low_first, high_second - 0.5)
    up = (high_first - 0.7, 0.5 - low_second)
    below = (down[0] ** 2 - 2 * phi * down[0] * down[1] + down[1] ** 2) ** 0.5
    above = (up[0] ** 2 - 2 * phi * up[0] * up[1] + up[1] ** 2) ** 0.5
    expected = (0.2 - below, 0.2 + above)
    assert intervals.of_paired_difference(first, second) == pytest.approx(expected)
    low, high = intervals.of_paired_difference(second, first)
    assert (-high, -low) == pytest.approx(expected), "the other way round it is its mirror image"


def answers_of(table):
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    listed = [pair for pair, count in zip(pairs, table, strict=True) for _ in range(count)]
    return [one for one, _ in listed], [other for _, other in listed]


def test_answers_that_go_together_make_the_interval_narrower():
    together = intervals.of_paired_difference(*answers_of((40, 10, 0, 50)))
    apart = intervals.of_paired_difference(*answers_of((20, 30, 20, 30)))
    assert together[1] - together[0] < 0.7 * (apart[1] - apart[0])


@pytest.mark.parametrize(
    ("differing", "chance"), [((0, 0), 1.0), ((10, 0), 0.001953), ((8, 2), 0.109375), ((5, 5), 1.0)]
)
def test_mcnemar(differing, chance):
    first, second = answers_of((7, *differing, 3))
    assert intervals.mcnemar(first, second) == pytest.approx(chance, rel=1e-3)
    assert intervals.mcnemar(second, first) == pytest.approx(chance, rel=1e-3)


def test_answers_to_other_questions_are_no_pairs():
    with pytest.raises(ValueError):
        intervals.of_paired_difference([True], [True, False])


def test_the_paired_interval_covers_the_true_difference():
    """95 % of intervals of simulated pairs hold the difference."""
    rng = random.Random(0)
    held = 0
    for _ in range(800):
        table = Counter(rng.choices("abcd", (0.5, 0.2, 0.1, 0.2), k=100))
        low, high = intervals.of_paired_difference(*answers_of([table[name] for name in "abcd"]))
        held += low <= 0.1 <= high
    assert 0.93 <= held / 800 <= 0.98
