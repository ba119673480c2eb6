"""Refusals are counted by what the first model did with the same question."""

from __future__ import annotations

import pytest

from llmstages.plugins.evaluate.answers import Answers, AnswersConfig
from llmstages.plugins.evaluate.before_after import compare
from llmstages.plugins.evaluate.tasks import Tasks, TasksConfig
from llmstages.text import generate
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model


def row(name, said, role="test"):
    return {
        "task": "facts",
        "group": "all",
        "prompt": name,
        "wanted": "x",
        "right": said == "right",
        "refused": said == "refused",
        "role": role,
    }


def test_needless_refusals_are_told_from_wise_ones():
    first = [
        row(n, said) for n, said in zip("abcd", ("right", "right", "wrong", "wrong"), strict=True)
    ]
    after = [
        row(n, said)
        for n, said in zip("abcd", ("right", "refused", "refused", "wrong"), strict=True)
    ]
    groups = compare(after, first)["facts"]
    assert groups["right before"]["refused"] == 0.5
    assert groups["not right before"]["refused"] == 0.5
    assert groups["all questions"]["wrong_ratio"] == 0.5
    assert groups["right before"]["n"] == 2
    assert groups["right before"]["refused_low"] < 0.5 < groups["right before"]["refused_high"]
    # The first model beside itself
    itself = compare(first, first)["facts"]
    assert itself["right before"]["right"] == 1 and itself["all questions"]["wrong_ratio"] == 1


@pytest.mark.parametrize(
    "rows",
    [
        [row("a", "right", role="threshold")],
        [{"task": "facts", "group": "all", "prompt": "a", "wanted": "x", "right": True}],
    ],
)
def test_thresholds_and_answers_without_refusals_are_left_out(rows):
    assert compare(rows, rows) == {}


def test_the_evaluation_scores_by_what_the_first_model_knew(tmp_path, monkeypatch):
    replies = iter([["Ra", "Ra", "Su"], ["Ra", "I don't know.", "I don't know."]])

    def answer(model, tokenizer, prompts, *_, **__):
        texts = next(replies) if prompts else []
        return [generate.Reply([message("assistant", text)], True) for text in texts]

    monkeypatch.setattr(
        Answers, "mark_sampled", lambda *_: None
    )  # which would ask for no question at all
    monkeypatch.setattr(generate, "reply", answer)
    rows = [
        {"prompt": [message("user", f"q{n}?")], "answer": "Ra", "role": "test"} for n in range(3)
    ]
    models = [saved_model(tmp_path / name, hidden=16) for name in ("base", "taught")]
    _, metrics = perform(
        Tasks,
        tmp_path / "evaluate",
        TasksConfig(evaluators={"answers": {"use": "answers"}}, compare_with_first=True),
        models=models,
        questions=saved(tmp_path / "questions", "problems", rows),
    )
    assert AnswersConfig().sampled == []
    assert metrics["problems/right before/taught/refused"] == 0.5
    assert metrics["problems/not right before/taught/refused"] == 1.0
    assert metrics["problems/all questions/taught/wrong_ratio"] == 0.0
    assert metrics["problems/all/taught/refused"] == pytest.approx(2 / 3)
