"""KTO: the margin moves, also on unseen pairs, and each answer meets one of another prompt."""

from __future__ import annotations

import dataclasses as dc

import pytest
import torch
from safetensors.torch import load_file

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.plugins.rl.kto import KTO, KTOConfig, with_other_answers
from tests.plugins.rl.test_dpo import pair
from tests.tiny import perform, saved, saved_model

CONFIG = KTOConfig(learning_rate=2e-3, batch_size=16, epochs=6.0, warmup_steps=2, log_every=1)


@pytest.fixture
def inputs(tmp_path):
    return {
        "policy": saved_model(tmp_path / "policy"),
        "preferences": saved(tmp_path / "pairs", "preferences", [pair(i) for i in range(40)]),
    }


@pytest.mark.parametrize("lora", [0, 4])
def test_the_margin_moves_on_pairs_not_seen_too(tmp_path, inputs, lora):
    config = dc.replace(CONFIG, lora_r=lora)
    made, metrics = perform(KTO, tmp_path / "rl", config, **inputs)
    assert metrics["test_margin"] > 0.2
    assert metrics["test_accuracy"] == 1.0
    assert metrics["chosen_reward_last"] > metrics["rejected_reward_last"]
    assert metrics["pairs"] == 36 and metrics["test_pairs"] == 4
    before = load_file(inputs["policy"].path / "model.safetensors")
    after = load_file(made.path / "model.safetensors")
    assert set(before) == set(after)
    assert any(not torch.equal(weight, after[name]) for name, weight in before.items())


def test_the_same_seed_gives_the_same_bits(tmp_path, inputs):
    one, two = (perform(KTO, tmp_path / name, CONFIG, **inputs)[0].path for name in ("one", "two"))
    for name in ("model.safetensors", "log.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_each_answer_is_paired_with_another_of_its_micro_batch():
    import datasets

    answers = [[number] for number in range(7)]
    rows = with_other_answers(datasets.Dataset.from_dict({"completion_ids": answers}), 3)
    assert rows["KL_completion_ids"][:] == [[2], [0], [1], [5], [3], [4], [6]]


def test_a_micro_batch_of_one_is_refused():
    with pytest.raises(StageError, match="micro_batch_size must be 2 or more"):
        build_config(KTOConfig, {"micro_batch_size": 1}, "rl")
    with pytest.raises(StageError, match="batch_size is 1, but it must be >= 2"):
        build_config(KTOConfig, {"batch_size": 1}, "rl")
