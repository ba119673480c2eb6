"""A reward model learns an order, and RL shows it the same tokens as its training did."""

from __future__ import annotations

from llmstages.plugins.reward import pairwise
from llmstages.plugins.rl.rewards.reward_model import RewardModel, RewardModelConfig
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model


def pair(i, good="The fox lives near the river.", bad="no"):
    return {
        "prompt": [message("user", f"Where does the fox live? {i}")],
        "chosen": [message("assistant", good)],
        "rejected": [message("assistant", bad)],
    }


def test_it_learns_the_order(tmp_path):
    rows = [pair(i) for i in range(40)]
    made, metrics = perform(
        pairwise.Pairwise,
        tmp_path / "reward",
        pairwise.PairwiseConfig(learning_rate=3e-3, batch_size=8, epochs=4.0),
        model=saved_model(tmp_path / "model"),
        preferences=saved(tmp_path / "pairs", "preferences", rows),
    )
    assert metrics["accuracy"] == 1.0 and metrics["test_pairs"] == 4
    judge = RewardModel(RewardModelConfig())
    judge.open(made)
    good, bad = judge.score(
        [r["prompt"] for r in rows[:2]], ["The fox lives near the river.", "no"], {}
    )
    assert good > bad


def test_long_pairs_are_dropped_with_a_line(tmp_path):
    rows = [pair(i) for i in range(10)] + [pair(99, good="far " * 300)]
    _, metrics = perform(
        pairwise.Pairwise,
        tmp_path / "reward",
        pairwise.PairwiseConfig(epochs=1.0, batch_size=4, max_length=100),
        model=saved_model(tmp_path / "model"),
        preferences=saved(tmp_path / "pairs", "preferences", rows),
    )
    assert metrics["dropped_too_long"] == 1 and "1 of 11 pairs dropped" in perform.said[0]
