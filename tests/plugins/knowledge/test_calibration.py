"""Agreement of answers, and how far it tells right from wrong."""

from __future__ import annotations

import pytest

from llmstages.plugins.knowledge.calibration import (
    agreement,
    auc,
    clusters,
    curve,
    expected_error,
    lowest_sure,
)


@pytest.mark.parametrize(
    ("texts", "share", "place"),
    [
        (["Paris", "paris.", "It is Paris.", "Rome"], 0.75, 0),
        (["Rome", "Paris", "The answer is Paris."], 2 / 3, 1),
        (["12", "The answer is 12.", "13"], 2 / 3, 0),
        (["I don't know.", "I am not sure about that.", "Paris"], 2 / 3, 0),
        (["Paris", "I do not know whether it is Paris."], 0.5, 0),
        (["a", "b", "c"], 1 / 3, 0),
        (["", "", "Paris"], 2 / 3, 0),
        (["", "Paris", "It is Paris."], 2 / 3, 1),
        (["Париж", "ПАРИЖ!"], 1.0, 0),
    ],
)
def test_answers_that_say_the_same_agree(texts, share, place):
    assert agreement(texts) == (pytest.approx(share), place)


def test_an_answer_agrees_with_one_cluster_only():
    assert clusters(["Paris", "Paris or Rome", "Rome"]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.1, 0.9], [False, True], 1.0),
        ([0.9, 0.1], [False, True], 0.0),
        ([0.5, 0.5], [False, True], 0.5),
        ([0.2, 0.4, 0.4, 0.8], [False, True, False, True], 0.875),
        ([0.5], [True], None),
    ],
)
def test_auc_counts_pairs(scores, positive, expected):
    assert auc(scores, positive) == expected


def test_the_curve_and_its_error():
    bins = curve([0.25, 0.25, 0.3, 1.0, 1.0], [True, False, False, True, True])
    assert [row["n"] for row in bins] == [2, 1, 2]
    assert [row["right"] for row in bins] == [0.5, 0.0, 1.0]
    assert expected_error(bins) == pytest.approx((2 * 0.25 + 0.3 + 0) / 5)


def test_the_least_share_that_is_sure():
    shares = [0.2, 0.6, 0.6, 1.0, 1.0]
    again = [False, True, False, True, True]
    assert lowest_sure(shares, again, 0.9) == 1.0
    assert lowest_sure(shares, again, 0.75) == 0.6
    assert lowest_sure(shares, [False] * 5, 0.5) is None
    assert lowest_sure([0.0, 0.0], [True, True], 0.5) is None
