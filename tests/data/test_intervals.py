"""Intervals of shares, against values from the literature."""

from __future__ import annotations

import pytest

from llmstages.data.intervals import wilson


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
