"""A policy that games its reward is stopped, and the policy before it is what is saved."""

from __future__ import annotations

import dataclasses as dc

import pytest
import torch
from safetensors.torch import load_file

from llmstages.data import tables
from llmstages.plugins.rl import alarms, policy
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.ppo import PPO, PPOConfig
from tests.plugins.rl.test_variants import ROWS
from tests.tiny import perform, saved, saved_model

REWARDS = {"exact_answer": {"use": "exact_answer"}}
OPTIONS = {
    "max_steps": 60,
    "seed": 1,
    "batch_size": 16,
    "max_completion_length": 12,
    "learning_rate": 5e-3,
    "beta": 0.0,
    "truncated": "none",
    "rewards": REWARDS,
    "log_every": 1,
}
VARIANTS = {
    "grpo": (GRPO, GRPOConfig(**OPTIONS)),
    "ppo": (PPO, PPOConfig(**OPTIONS, critic_learning_rate=3e-3)),
}


class Long:
    """A reward with a hole: every repeated word is paid."""

    class config:
        weight = 1.0

    def score(self, prompts, completions, rows):
        return [
            float(len(text.split()) - len(set(text.split()))) + text.count("e")
            for text in completions
        ]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"long": Long()})
    return {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }


@pytest.mark.parametrize("name", [pytest.param("grpo", marks=pytest.mark.slow), "ppo"])
def test_training_stops_at_an_alarm_and_saves_what_was_before(tmp_path, inputs, name):
    stage, config = VARIANTS[name]
    _, warned = perform(stage, tmp_path / "warn", config, **inputs)
    said = [line for line in perform.said if "ALARM" in line]
    assert warned["updates"] == 60 and warned["alarms"] >= 1 and said
    made, stopped = perform(stage, tmp_path / "stop", dc.replace(config, alarm="stop"), **inputs)
    (first, *_) = tables.read_lines(made.path / "alarms.jsonl")
    assert stopped["updates"] == first["update"] < 60
    assert stopped["saved_update"] < stopped["updates"]
    assert any(f"saved is update {stopped['saved_update']:.0f}" in line for line in perform.said)
    # The weights are those of a training that ended there.
    until = {"max_steps": int(stopped["saved_update"])}
    other, _ = perform(stage, tmp_path / "until", dc.replace(config, **until), **inputs)
    one, two = (load_file(at.path / "model.safetensors") for at in (made, other))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_best_update_is_that_of_the_highest_watched_reward():
    log = [{"step": step, "rewards/gold/mean": value} for step, value in enumerate((1, 3, 2))]
    assert [alarms.is_best(log[: end + 1], ["gold"]) for end in range(3)] == [True, True, False]


def test_without_a_watched_reward_it_is_the_last_one_within_bounds():
    log = [{"step": step, "signals/empty": value} for step, value in enumerate((0, 0, 0.1, 0.9))]
    assert [alarms.is_best(log[: end + 1], []) for end in (2, 3)] == [True, False]
