"""Evaluation counts what was said, sets its threshold on probe questions only, and runs tools for real."""

from __future__ import annotations

import json

import pytest

from llmstages.data import tables
from llmstages.plugins.evaluate.answers import Answers, AnswersConfig
from llmstages.plugins.evaluate.tasks import Tasks, TasksConfig
from llmstages.text import generate
from llmstages.text.grading import number_of, right
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model, tiny_tokenizer


def question(task, group, text, answer, role="test", style="chat", **meta):
    return {
        "task": task,
        "group": group,
        "prompt": [message("user", text)],
        "answer": answer,
        "role": role,
        "style": style,
        "meta": json.dumps(meta),
    }


@pytest.mark.parametrize(
    "text, answer, expected",
    [
        ("6+8=14; answer 104", "104", True),
        ("answer 1040", "104", False),
        ("#### 1,234", "1234", True),
        ("It costs 72 dollars.", "72", True),
        ("72 or 73", "72", False),
        ("She was born in Ra.", "Ra", True),
        ("She was born in Rab.", "Ra", False),
        ("", "7", False),
        ("answer -3.", "-3", True),
    ],
)
def test_right_and_wrong(text, answer, expected):
    assert right(text, answer) is expected


def test_the_last_number_counts():
    assert number_of("first 3, then 4.") == "4" and number_of("none") == ""


def test_marks_and_threshold(monkeypatch, tmp_path):
    said = {
        "p1": ("Ra", 0.9),
        "p2": ("Ra", 0.5),
        "p3": ("Su", 0.95),
        "t1": ("Ra", 0.4),
        "t2": ("I do not know.", 1.0),
        "t3": ("Su", 0.2),
    }

    def oracle(model, tokenizer, prompts, tools=None, **_):
        return [
            generate.Reply(
                [message("assistant", said[p[0]["content"]][0])], True, said[p[0]["content"]][1]
            )
            for p in prompts
        ]

    monkeypatch.setattr(generate, "reply", oracle)
    questions = [question("probe", "g", t, "Ra", "probe") for t in ("p1", "p2", "p3")] + [
        question("facts", "g", t, "Ra") for t in ("t1", "t2", "t3")
    ]
    scores, answers, facts = Answers(AnswersConfig(keep=1.0, sampled=[])).score(
        None, tiny_tokenizer(), questions, None, lambda n: None
    )
    assert (
        facts["threshold"] == 0.5
    )  # the least sure of the right probe answers; the test questions had no say
    group = scores["facts"]["g"]
    assert (group["right"], group["refused"], group["wrong"]) == pytest.approx((1 / 3,) * 3)
    assert (
        group["sure_right"] == group["sure_wrong"] == 0.0 and group["n"] == 3 and len(answers) == 6
    )


def test_all_models_get_the_same_questions_and_tools_run(tmp_path):
    rows = [
        question("facts", "unseen", "Where was Bo Li born?", "Ra", name="Bo Li"),
        question("cloze", "all", "the cat sat on the", "mat.", style="plain"),
        question("sums", "all", "1+1=?", "2", role="train"),
    ]
    tools = tmp_path / "tools"
    tools.mkdir()
    from llmstages.plugins.tools import index

    index.build(tools / "index.sqlite", ["Bo Li was born in Ra."])
    tables.write_json(tools / "tools.json", {"search": {"use": "search"}})
    from llmstages.core.stage import Artifact

    one, two = saved_model(tmp_path / "one"), saved_model(tmp_path / "two")
    config = TasksConfig(
        tasks={"answers": {"use": "answers", "max_new_tokens": 8}}, only={"cloze": ["one"]}
    )
    made, metrics = perform(
        Tasks,
        tmp_path / "scores",
        config,
        models=(one, two),
        questions=saved(tmp_path / "q", "problems", rows),
        tools=Artifact("tools", "dialogues", tools, "t"),
    )
    scores = json.loads((made.path / "scores.json").read_text())
    assert (
        set(scores["facts"]["unseen"]) == {"one", "two"}
        and set(scores["cloze"]["all"]) == {"one"}
        and "sums" not in scores
    )
    assert "page_right" in scores["facts"]["unseen"]["one"] and metrics["questions"] == 2
    said = tables.read_lines(made.path / "answers.jsonl")
    assert [a["answer"] for a in said if a["model"] == "one"][0] == [
        a["answer"] for a in said if a["model"] == "two"
    ][0]
