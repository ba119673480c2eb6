"""The chart of a profile: one row for each task, one mark for each model, readable without sight."""

from __future__ import annotations

from xml.etree import ElementTree

from llmstages.plugins.report import profile


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
