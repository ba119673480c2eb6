"""The chart of questions answered from memory, with the page, and with a search."""

from __future__ import annotations

from llmstages.data import tables
from llmstages.plugins.report import recollection
from tests.plugins.report.handmade import Run

UNSEEN = {
    "sft": {"right": 0.1, "right_low": 0.05, "right_high": 0.2, "called": 0.0, "page_right": 0.9},
    "sft_tools": {"right": 0.8, "called": 0.95, "page_right": 1.0, "n": 50, "commonest": 0.1},
}


def test_each_model_stands_in_the_way_that_it_answered():
    groups = {"unseen": UNSEEN, "frequent": {"sft": {"right": 0.9, "called": 0.0}}}
    by_group = recollection.ways(groups)
    assert list(by_group) == ["unseen"], "the others were not asked with a page"
    by_way = by_group["unseen"]
    assert set(by_way["from memory"]) == {"sft"} and set(by_way["with a search"]) == {"sft_tools"}
    assert set(by_way["with the page"]) == {"sft", "sft_tools"}
    assert by_way["from memory"]["sft"]["low"] == 0.05
    assert by_way["with the page"]["sft"]["right"] == 0.9


def test_the_page_shows_the_chart_where_there_is_something_to_compare(tmp_path):
    for place, groups in enumerate([{"unseen": UNSEEN}, {"frequent": {"sft": {"right": 0.9}}}]):
        run = Run(tmp_path / f"run{place}")
        run.step("sft", "model", "model.files")
        step = run.step("marks", "scores", "evaluate.tasks")
        tables.write_json(step / "scores.json", {"facts": groups})
        tables.write_lines(step / "answers.jsonl", [])
        html = run.report(tmp_path / f"out{place}")[0]
        assert ("Working memory against vague recollection" in str(html)) == (place == 0)
