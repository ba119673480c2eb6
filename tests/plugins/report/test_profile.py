"""The chart of a profile: a row for each task, a mark for each model, readable without sight."""

from __future__ import annotations

from xml.etree import ElementTree

from llmstages.data import tables
from llmstages.plugins.report import profile
from tests.plugins.report.handmade import Run


def values(right, low, high, constant=0.5):
    return {"right": right, "low": low, "high": high, "n": 20, "constant": constant}


def test_every_task_and_model_has_a_mark_with_its_interval():
    tasks = {
        "letter_counting": {
            "sft <b>": values(0.25, 0.1, 0.5),
            "sft <b> with tools": values(0.75, 0.5, 0.9),
        },
        "dates": {"sft <b>": values(0, 0, 0.16, 0.1)},
    }
    chart = profile.chart("jagged", tasks, ["sft <b>", "sft <b> with tools"])
    root = ElementTree.fromstring(str(chart))
    svg = root.find("svg")
    marks = [group for group in svg.findall("g") if "mark" in group.get("class", "")]
    assert len(marks) == 3
    assert [len(mark.findall("circle")) for mark in marks] == [1, 0, 1], "squares are with tools"
    line, circle = marks[0].find("line"), marks[0].find("circle")
    width = profile.WIDTH - profile.LEFT - profile.RIGHT
    places = [float(line.get("x1")), float(circle.get("cx")), float(line.get("x2"))]
    shares = [(place - profile.LEFT) / width for place in places]
    assert [round(share, 2) for share in shares] == [0.1, 0.25, 0.5]
    assert "25% right (10% to 50%, n=20)" in marks[0].find("title").text
    limits = [line for line in svg.findall("line") if line.get("class") == "limit"]
    assert [limit.find("title").text for limit in limits] == [
        "a constant answer: 50%",
        "a constant answer: 10%",
    ]
    assert "letter counting: sft <b> 25%, sft <b> with tools 75%" in svg.get("aria-label")
    assert len(root.find("ul").findall("li")) == 2


def test_the_page_shows_the_profile_and_places_tools_behind_their_model(tmp_path):
    run = Run(tmp_path / "run")
    for name in ("zero", "later"):
        run.step(name, "model", "model.files")
    step = run.step("marks", "scores", "evaluate.jagged")
    names = ["later", "zero", "later with tools", "zero with tools"]
    cells = {name: {"right": 0.25, "n": 20} for name in names}
    tables.write_json(step / "scores.json", {"dates": {"7 days": cells}})
    profiles = {"dates": {name: values(0.25, 0.1, 0.5) for name in names}}
    tables.write_json(step / "profile.json", profiles)
    tables.write_lines(step / "answers.jsonl", [])
    _, parsed, *_ = run.report(tmp_path / "out")
    text = " ".join(parsed.text.split())
    assert "what tools repair" in text
    for later_name in ("zero with tools", "later", "later with tools"):
        assert "zero" in text[: text.index(later_name)], later_name
    assert "zerozero with toolslaterlater with tools" in text.replace("> ", "")


def test_a_page_without_a_profile_has_no_such_section(tmp_path):
    run = Run(tmp_path / "run")
    step = run.step("marks", "scores", "evaluate.x")
    tables.write_json(step / "scores.json", {"t": {"all": {"m": {"right": 0.5, "n": 4}}}})
    tables.write_lines(step / "answers.jsonl", [])
    _, parsed, *_ = run.report(tmp_path / "out")
    assert "what tools repair" not in parsed.text
