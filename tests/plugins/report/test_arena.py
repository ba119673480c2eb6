"""The page of an arena: marks of judge and gold, the ranking, and what sways the judge."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from llmstages.data import tables
from llmstages.plugins.report import arena
from tests.plugins.report.handmade import EVIL, Run


def row(model, rank, rating):
    return {
        "model": model,
        "rank": rank,
        "rating": rating,
        "rating_low": rating - 20,
        "rating_high": rating + 30,
        "points": 0.5,
        "won": 3,
        "tied": 2,
        "lost": 3,
        "n": 8,
    }


RANKING = [row("zero", 1, 1050.0), row("later", 2, 950.0)]
GOLD = [row("later", 1, 1100.0), row("zero", 2, 900.0)]
SHARE = {"first": 0.825, "first_low": 0.64, "first_high": 0.93, "first_n": 40}
FOUND = {
    "judge": "model",
    "ranking": RANKING,
    "wins": {"zero": {"later": {"won": 3, "tied": 2, "lost": 1}}},
    "position": SHARE,
    "length": {},
    "gold": {"judge": "grader", "ranking": GOLD, "agreement": {"kendall_tau": -1.0}},
    "reference": {
        "name": "exam",
        "metric": "right",
        "cells": ["sums/all"],
        "values": {"zero": 0.25},
        "kendall_tau": None,
    },
}


def test_each_model_has_a_mark_of_the_judge_and_one_of_gold():
    chart = arena.chart("arena <b>", {"a model": RANKING, "the grader (gold)": GOLD})
    root = ElementTree.fromstring(str(chart))
    svg = root.find("svg")
    marks = [group for group in svg.findall("g") if "mark" in group.get("class", "")]
    assert [len(mark.findall("circle")) for mark in marks] == [1, 1, 0, 0], "squares are gold"
    assert "zero by a model: 1050 (1030 to 1080), place 1" in marks[0].find("title").text
    line, circle = marks[0].find("line"), marks[0].find("circle")
    left, middle, right = (float(line.get("x1")), float(circle.get("cx")), float(line.get("x2")))
    assert (right - middle) / (middle - left) == pytest.approx(1.5, abs=0.05)
    # Gold ranks the other way round, in the rows of the first ranking.
    rows = [float(mark.find("line").get("y1")) for mark in marks]
    assert rows[0] < rows[3] < rows[1] < rows[2]
    assert "By a model: zero 1050, later 950" in svg.get("aria-label")
    assert len(root.find("ul").findall("li")) == 2


def test_models_of_one_rating_can_be_drawn():
    same = [{**row("zero", 1, 1000.0), "rating_low": 1000.0, "rating_high": 1000.0}]
    assert ElementTree.fromstring(str(arena.chart("arena", {"the grader": same}))) is not None


def test_the_page_shows_the_arena(tmp_path):
    run = Run(tmp_path / "run")
    for name in ("zero", "later"):
        run.step(name, "model", "model.files")
    step = run.step("duel", "scores", "evaluate.arena")
    values = {"rating": 1050.0, "rating_low": 1030.0, "rating_high": 1080.0, "n": 8}
    tables.write_json(step / "scores.json", {"arena": {"by model": {"zero": values}}})
    tables.write_json(step / "arena.json", FOUND)
    answer = {"task": "sums", "group": "all", "question": 1, "prompt": EVIL, "wanted": "2"}
    answers = [{**answer, "model": name, "answer": EVIL} for name in ("zero", "later")]
    tables.write_lines(step / "answers.jsonl", answers)
    _, parsed, *_ = run.report(tmp_path / "out")
    text = " ".join(parsed.text.split())
    assert "duel: compared by a model" in text and "place by gold" in text
    assert "right in exam" in text and "25 %" in text
    assert "The judge prefers the answer in front: 82 % (64 to 93, n=40)" in text
    assert "gold): -1.00" in text and "The longer answer wins" not in text
    assert "script" not in parsed.tags
