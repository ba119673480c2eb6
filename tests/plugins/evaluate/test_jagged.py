"""evaluate.jagged: the same questions for all models, without and with tools, and their profile."""

from __future__ import annotations

import json
import re

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.data import tables
from llmstages.data.intervals import wilson
from llmstages.plugins.evaluate.jagged import Jagged, JaggedConfig, profile
from llmstages.text import generate
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model

TASKS = {"multiplication": [1, 2], "comparing_decimals": [2]}
SMALL = {"words": "generated", "alphabet": "abcd", "tasks": TASKS, "count": 4, "max_new_tokens": 4}


def saved_tools(folder):
    folder.mkdir()
    tables.write_json(folder / "tools.json", {"calculator": {"use": "calculator"}})
    return Artifact("tools", "dialogues", folder, "tools")


@pytest.fixture
def oracle(monkeypatch):
    """Multiplies right only with the calculator, and always says the first of two numbers."""
    asked: list[list[str]] = []

    def reply(model, tokenizer, prompts, tools=None, **_):
        asked.append([prompt[-1]["content"] for prompt in prompts])
        replies = []
        for question in asked[-1]:
            first, second = re.findall(r"\d+(?:\.\d+)?", question)
            text = first
            if "." not in first and tools:
                text = tools["calculator"](f"{first}*{second}")
            replies.append(generate.Reply([message("assistant", text)], True, 0.9))
        return replies

    monkeypatch.setattr(generate, "reply", reply)
    return asked


def test_tools_are_shown_beside_no_tools(tmp_path, oracle):
    models = [saved_model(tmp_path / "one"), saved_model(tmp_path / "two")]
    config = JaggedConfig(**SMALL, with_tools=["two"])
    artifact, metrics = perform(
        Jagged, tmp_path / "jagged", config, models=models, tools=saved_tools(tmp_path / "t")
    )
    assert len(oracle) >= 3 and all(asked == oracle[0] for asked in oracle if asked)
    scores = json.loads((artifact.path / "scores.json").read_text())
    assert set(scores["multiplication"]["2 digits"]) == {"one", "two", "two with tools"}
    with_tools = scores["multiplication"]["2 digits"]["two with tools"]
    assert (with_tools["right"], with_tools["n"]) == (1.0, 4)
    assert with_tools["right_low"] == pytest.approx(wilson(4, 4)[0])
    assert scores["multiplication"]["2 digits"]["two"]["right"] == 0.0
    # Half of the larger numbers stand first: the constant way of answering, not the number itself.
    compared = scores["comparing_decimals"]["2 decimals"]["one"]
    assert compared["right"] == compared["commonest"] == 0.5
    assert metrics["multiplication/2 digits/two with tools/right"] == 1.0
    pooled = json.loads((artifact.path / "profile.json").read_text())
    assert pooled["multiplication"]["two with tools"]["n"] == 8
    assert pooled["multiplication"]["two with tools"]["low"] == pytest.approx(wilson(8, 8)[0])
    answers = list(map(json.loads, (artifact.path / "answers.jsonl").read_text().splitlines()))
    assert {row["model"] for row in answers} == {"one", "two", "two with tools"}


def test_a_profile_is_over_all_sizes_of_a_task():
    one = {"right": 1.0, "n": 4, "commonest": 0.5}
    two = {"right": 0.0, "n": 12, "commonest": 0.25}
    pooled = profile({"dates": {"7 days": {"m": one}, "31 days": {"m": two}}})["dates"]["m"]
    low, high = wilson(4, 16)
    assert pooled == {"right": 0.25, "n": 16, "constant": 0.3125, "low": low, "high": high}


def test_a_real_model_answers_wired_questions(tmp_path):
    rows = [
        {
            "prompt": [message("user", f"1+{number}=?")],
            "answer": str(1 + number),
            "task": "sums",
            "role": "train" if number == 5 else "test",
        }
        for number in range(6)
    ]
    artifact, metrics = perform(
        Jagged,
        tmp_path / "jagged",
        JaggedConfig(count=3, max_new_tokens=2),
        models=[saved_model(tmp_path / "one")],
        questions=saved(tmp_path / "sums", "problems", rows),
    )
    assert metrics["questions"] == 3 and "those of sums" in perform.said[0]
    answers = (artifact.path / "answers.jsonl").read_text()
    assert len(answers.splitlines()) == 3 and "1+5=?" not in answers


def test_nothing_to_ask_and_nobody_to_ask_are_refused(tmp_path):
    with pytest.raises(StageError, match="no model to ask"):
        perform(Jagged, tmp_path / "none", JaggedConfig(**SMALL), models=[])
    rows = [{"prompt": [message("user", "1+1=?")], "answer": "2", "role": "train"}]
    with pytest.raises(StageError, match="no question of the role test"):
        perform(
            Jagged,
            tmp_path / "jagged",
            JaggedConfig(),
            models=[Artifact("m", "model", tmp_path, "m")],
            questions=saved(tmp_path / "sums", "problems", rows),
        )
    with pytest.raises(StageError, match="tasks has no task 'sums'"):
        Jagged().validate(JaggedConfig(tasks={"sums": [2]}), "evaluate")


def test_estimate(tmp_path):
    from llmstages.cost.model import Model

    model = Model("llama", vocab=100, hidden=8, layers=1, heads=1, intermediate=16)
    known = {"models": [{"name": "m", "model": model}]}
    config = JaggedConfig(**SMALL)
    assert Jagged().estimate(config, known)["questions"] == 12
    assert Jagged().estimate(config, known)["generation"].prompts == 12
    with_tools = {**known, "tools": [{"name": "t"}]}
    assert Jagged().estimate(config, with_tools)["generation"].prompts == 24
    wired = {**known, "questions": [{"name": "q", "test": 5, "groups": 1}]}
    assert Jagged().estimate(config, wired)["questions"] == 4
    unknown = {"models": [{"name": "m"}]}
    assert "m is made" in Jagged().estimate(config, unknown)["no_estimate"]
