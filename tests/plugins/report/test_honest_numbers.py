"""What pages and logs of other tools show falsely: averages, thinned curves, rounded verdicts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.report import page, plots
from llmstages.plugins.report.claims import holds, measure
from llmstages.plugins.report.plots import Series
from llmstages.plugins.report.steps import natural_key
from llmstages.train.trainer import write_log
from tests.plugins.report.handmade import Run

# wandb#2202: values that are not finite.


def test_the_log_keeps_the_names_of_values_that_are_not_numbers(tmp_path):
    history = [
        {"step": 1, "loss": 1.0, "epoch": 0.1, "train_runtime": 3.0},
        {"step": 2, "loss": math.nan, "grad_norm": math.inf},
        {"step": 3, "rewards/epoch_words/mean": 0.5, "epoch_words": 0.5, "runtime": 1.0},
    ]
    ctx = Context("sft", tmp_path, tmp_path, {})
    write_log(SimpleNamespace(state=SimpleNamespace(log_history=history)), ctx)
    assert tables.read_lines(tmp_path / "log.jsonl") == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "not_finite": ["grad_norm", "loss"]},
        {"step": 3, "rewards/epoch_words/mean": 0.5, "epoch_words": 0.5},
    ]


def test_a_line_is_broken_where_there_is_no_number_and_the_caption_says_so():
    series = [
        Series("a", [(1, 1.0), (2, 1.5), (3, math.nan), (4, 1.0), (5, 2.0)]),
        Series("b", [(1, math.nan)], "s1"),
    ]
    chart = str(plots.lines("loss", series))
    assert chart.count('<path d="M') >= 1 and chart.split('<path d="', 1)[1].count("M") >= 2
    assert "not a finite number: 1 of a, 1 of b" in chart


# wandb#4295: a thinned curve.


@pytest.mark.parametrize("place", [1, 333, 500, 998])
@pytest.mark.parametrize("value", [50.0, -50.0])
def test_a_spike_survives_thinning(place, value):
    points = [(float(at), 1.0) for at in range(1000)]
    points[place] = (float(place), value)
    kept = plots.thin(points)
    assert (float(place), value) in kept and len(kept) <= plots.MAX_POINTS
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert kept == sorted(kept)


# camunda#50583, coverage.py#41: rounding across the border that the reader judges by.


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1.0, "100"),
        (0.9961, "99.6"),
        (0.004, "0.4"),
        (0.0001, "<0.1"),
        (0.99999, ">99.9"),
        (0.5, "50"),
        (0.996, "99.6"),
        (0.99, "99"),
    ],
)
def test_none_and_all_are_shown_only_if_they_are(value, shown):
    assert page.percent(value) == shown


@pytest.mark.parametrize(
    ("value", "target"),
    [(0.8996, ">= 0.9"), (0.9004, "<= 0.9"), (3.2096, ">= 3.21"), (0.2, "> 0.2"), (12.0, ">= 3")],
)
def test_a_number_beside_its_target_shows_on_which_side_it_lies(value, target):
    shown = page.beside(value, target).replace(page.THIN_SPACE, "")
    assert holds(target, float(shown)) == holds(target, value)


def test_a_difference_of_shares_is_not_missed_by_rounding():
    spec = {"value": "a:p - a:q", "target": ">= 0.2"}
    assert measure("x", spec, {"a": {"p": 0.3, "q": 0.1}}, targeted=True).met
    assert not holds("> 0.2", 0.3 - 0.1) and not holds(">= 0.2", 0.1999)


# alpaca_eval#325: other numbers of questions under one n.


def test_numbers_of_questions_that_differ_are_shown_for_each_model(tmp_path):
    run = Run(tmp_path / "run")
    step = run.step("marks", "scores", "evaluate.x")
    cells = {"a": {"right": 0.5, "n": 40}, "b": {"right": 1.0, "n": 3}, "c": {"loss": 1.25, "n": 3}}
    tables.write_json(step / "scores.json", {"t": {"all": cells}})
    tables.write_lines(step / "answers.jsonl", [])
    _, parsed, *_ = run.report(tmp_path / "out")
    text = " ".join(parsed.text.split())
    assert "n=3 to 40" in text and "of 3" in text and "of 40" in text
    assert "1.25 nats" in text


# inspect_ai#972, vitals#10: two questions with the same words, and verdicts made anew.


def test_questions_with_the_same_last_turn_stay_apart(tmp_path):
    run = Run(tmp_path / "run")
    step = run.step("marks", "scores", "evaluate.x")
    tables.write_json(step / "scores.json", {})
    rows = [
        {
            "task": "q",
            "group": "all",
            "question": number,
            "prompt": "Go on.",
            "model": model,
            "wanted": wanted,
            "answer": answer,
            "right": right,
        }
        for model in ("a", "b")
        for number, (wanted, answer, right) in enumerate(
            [("four", "four", True), ("Paris", "Rome", False)]
        )
    ]
    tables.write_lines(step / "answers.jsonl", rows)
    _, parsed, *_ = run.report(tmp_path / "out")
    for word in ("four", "Paris", "Rome"):
        assert word in parsed.text


def test_the_page_grades_nothing_itself():
    from llmstages.plugins.report.answers import _cell
    from llmstages.plugins.report.scores import _grade_start

    same = {"answer": "Paris", "wanted": "Paris"}
    assert _cell(same)["verdict"] == "other"
    assert _cell({**same, "right": True})["verdict"] == "right"
    assert _cell({"answer": "CO2", "wanted": "carbon dioxide", "right": True})["verdict"] == "right"
    start = {"prompt": "", "answer": "Parisian", "wanted": "Paris", "right": False}
    assert not _grade_start(start)["right"]


# mlflow#9837: numbers sorted as text.


def test_numbers_in_names_are_sorted_by_value():
    names = [
        "level 10",
        "Level 2",
        "10 digits",
        "2 digits",
        "words",
        "\u00b2 terms",
        "1.5",
        "10-20",
    ]
    assert sorted(names, key=natural_key) == [
        "1.5",
        "2 digits",
        "10 digits",
        "10-20",
        "Level 2",
        "level 10",
        "words",
        "\u00b2 terms",
    ]
