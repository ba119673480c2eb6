"""Probing: a repeated right answer is known, the rest is refused, test questions are never used."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.knowledge.probe import Probe, ProbeConfig
from llmstages.text import generate
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model


def question(text, answer, role="probe"):
    return {
        "prompt": [message("user", text)],
        "answer": answer,
        "task": "probe",
        "group": "all",
        "role": role,
    }


def test_known_answers_and_refusals(tmp_path, monkeypatch):
    asked = []

    def oracle(model, tokenizer, prompts, *_, **__):
        asked.extend(p[0]["content"] for p in prompts)
        return [
            generate.Reply(
                [
                    message(
                        "assistant", "It is Ra." if "known" in p[0]["content"] else f"It is {i}."
                    )
                ],
                True,
            )
            for i, p in enumerate(prompts)
        ]

    monkeypatch.setattr(generate, "reply", oracle)
    rows = [
        question("known a?", "Ra"),
        question("known b?", "Ra"),
        question("strange?", "Su"),
        question("odd?", "Du"),
        question("secret?", "Ra", "test"),
    ]
    made, metrics = perform(
        Probe,
        tmp_path / "knowledge",
        ProbeConfig(num_generations=3, ratio=0.5),
        model=saved_model(tmp_path / "model"),
        questions=saved(tmp_path / "questions", "problems", rows),
    )
    said = {
        r["messages"][0]["content"]: r["messages"][-1]["content"]
        for r in tables.load(made.path / "data")
    }
    assert said["known a?"] == said["known b?"] == "It is Ra." and "secret?" not in asked
    assert (
        sum(ProbeConfig.refusal == text for text in said.values()) == 1 and metrics["unknown"] == 2
    )
    assert "refusals left out" in perform.said[-1]


def test_nothing_to_ask_is_said(tmp_path):
    with pytest.raises(StageError, match="no questions"):
        perform(
            Probe,
            tmp_path / "knowledge",
            ProbeConfig(),
            model=saved_model(tmp_path / "model"),
            questions=saved(tmp_path / "questions", "problems", [question("a?", "b", "test")]),
        )
