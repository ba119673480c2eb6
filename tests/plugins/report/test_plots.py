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
    assert (
        marks[0] <= low
        and marks[-1] >= high
        and 2 <= len(marks) <= 8
        and marks == sorted(set(marks))
    )


def test_a_chart_is_well_formed_and_tells_itself_in_words():
    text = str(
        plots.lines(
            "loss <b>",
            [
                Series("train", [(i, math.exp(-i / 50)) for i in range(1000)]),
                Series("held & out", [(0, 1.0)], "s1"),
            ],
            limits=[(0.5, "unigram")],
        )
    )
    root = ElementTree.fromstring(text)
    svg = root.find("svg")
    assert (
        "train: 1 at update 0" in svg.get("aria-label")
        and root.find("figcaption").text == "loss <b>"
    )
    assert len(text) < 20_000, "a long log is thinned"


def test_empty_and_broken_series_give_nothing():
    assert plots.lines("x", []) == "" and plots.lines("x", [Series("a", [(1, math.nan)])]) == ""
