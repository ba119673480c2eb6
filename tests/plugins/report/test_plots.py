"""Charts: well-formed SVG, round ticks, and nothing where there is nothing."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from llmstages.plugins.report import plots
from llmstages.plugins.report.plots import Series


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.0031, 0.0047), (-3, 12000), (5, 5), (0, 0), (-0.2, -0.1)]
)
def test_ticks_span_the_values(low, high):
    marks = plots.ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8
    assert marks == sorted(set(marks))


def test_a_chart_is_well_formed_and_described_in_words():
    train = Series("train", [(i, math.exp(-i / 50)) for i in range(1000)])
    held_out = Series("held & out", [(0, 1.0)], "s1")
    text = str(plots.lines("loss <b>", [train, held_out], limits=[(0.5, "unigram")]))
    root = ElementTree.fromstring(text)
    assert "train: 1 at update 0" in root.find("svg").get("aria-label")
    assert root.find("figcaption").text == "loss <b>"
    assert len(text) < 20_000, "a long log is thinned"


def test_empty_and_broken_series_give_nothing():
    assert plots.lines("x", []) == ""
    nothing = str(plots.lines("x", [Series("a", [(1, math.nan)])]))
    assert "not a finite number: 1 of a" in nothing and "svg" not in nothing
