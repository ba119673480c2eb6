"""Intervals of shares, against values from the literature."""

from __future__ import annotations

import random

import pytest

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
