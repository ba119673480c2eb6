"""What answers are paid that were cut before they ended."""

from __future__ import annotations

import pytest
import torch

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.rl import policy
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.truncation import leave_out_abstained, pay_truncated
from tests.plugins.rl.test_grpo import RIGHT, ROWS
from tests.tiny import perform, saved, saved_model


def paid(scores, ended, weights, penalty=1.0):
    """What is paid for each answer in the sum; the last column is that of the penalty."""
    rows = torch.tensor([[*row, 0.0] for row in scores])
    columns = torch.tensor([*weights, 1.0])
    out = pay_truncated(rows, torch.tensor(ended), columns, penalty)
    assert out.shape == rows.shape
    return (out * columns).sum(1).tolist()


def test_a_truncated_answer_is_paid_less_than_the_worst_that_ended():
    scores = [[3.0], [1.0], [9.0], [2.0]]
    assert paid(scores, [True, True, False, True], [1.0]) == [3.0, 1.0, 0.0, 2.0]
    assert paid(scores, [True, True, False, True], [2.0]) == [6.0, 2.0, 1.0, 4.0]
    assert paid(scores, [True, True, False, True], [1.0], penalty=0.5) == [3.0, 1.0, 0.5, 2.0]


def test_the_worst_of_a_reward_with_a_negative_weight_is_its_highest():
    scores = [[1.0, 5.0], [0.0, 2.0], [1.0, 0.0]]
    assert paid(scores, [True, True, False], [1.0, -0.1]) == pytest.approx([0.5, -0.2, -1.5])


def test_where_all_ended_nothing_changes_and_where_none_did_all_are_paid_the_same():
    scores = [[3.0], [1.0]]
    assert paid(scores, [True, True], [1.0]) == [3.0, 1.0]
    assert paid(scores, [False, False], [1.0]) == [0.0, 0.0]


class Length:
    """The longer the better, which a policy that never ends does best."""

    class config:
        weight = 1.0

    def score(self, prompts, completions, rows):
        return [float(len(text)) for text in completions]


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"length": Length()})
    inputs = {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }

    def run(truncated, **changes):
        settings = {
            "max_steps": 30,
            "batch_size": 32,
            "num_generations": 8,
            "max_completion_length": 6,
            "learning_rate": 3e-3,
            "log_every": 1,
            "beta": 0.0,
            **changes,
        }
        config = GRPOConfig(rewards=RIGHT, truncated=truncated, **settings)
        made, metrics = perform(GRPO, tmp_path / truncated, config, **inputs)
        return metrics, tables.read_lines(made.path / "log.jsonl")

    return run


def test_with_a_penalty_a_policy_learns_to_end_and_without_it_does_not(train):
    metrics, log = train("penalty")
    assert metrics["clipped_first"] > 0.8  # a model with random weights hardly ever ends
    assert metrics["clipped_last"] < metrics["clipped_first"] - 0.2
    assert all(row["rewards/truncated/mean"] <= 0 for row in log if "reward" in row)
    metrics, log = train("none")
    assert metrics["clipped_last"] > 0.8
    assert all(row["rewards/truncated/mean"] == 0 for row in log if "reward" in row)


def test_masked_answers_carry_no_loss(train):
    # Answers of two tokens: all are cut, so no token is left to learn from.
    metrics, log = train("mask", max_steps=2, max_completion_length=2)
    cut = [row["completions/clipped_ratio"] for row in log if "completions/clipped_ratio" in row]
    if min(cut) == 1.0:
        assert all(row["grad_norm"] == 0 for row in log if "grad_norm" in row)
    assert metrics["updates"] == 2


# Finding 3: dropout in the policy is no difference between it and its reference.


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_kl_is_zero_where_the_policy_is_its_reference(tmp_path, architecture, monkeypatch):
    from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
    from tests.tiny import tiny_tokenizer

    config = CausalLMConfig(
        architecture=architecture,
        dropout=0.1,
        init="plain",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    source = saved_model(tmp_path / "policy")
    net = CausalLM().fresh(config, tiny_tokenizer())
    assert "0.1" in str([value for name, value in net.config.to_dict().items() if "drop" in name])
    net.save_pretrained(source.path)
    inputs = {
        "policy": source,
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }
    settings = GRPOConfig(
        max_steps=1,
        batch_size=8,
        num_generations=4,
        max_completion_length=6,
        micro_batch_size=4,
        log_every=1,
        truncated="none",
        rewards=RIGHT,
    )
    made, metrics = perform(GRPO, tmp_path / "rl", settings, **inputs)
    assert abs(metrics["kl_last"]) < 1e-6
    (first,) = [row for row in tables.read_lines(made.path / "log.jsonl") if "grad_norm" in row]
    assert first["grad_norm"] < 1e-6


def test_dropout_of_adapters_is_refused(tmp_path):
    inputs = {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }
    config = GRPOConfig(max_steps=1, lora_r=4, lora_dropout=0.1, rewards=RIGHT)
    with pytest.raises(StageError, match=r"lora_dropout=0\.1: GRPO compares the policy"):
        perform(GRPO, tmp_path / "rl", config, **inputs)


def test_an_answer_from_which_all_paid_rewards_abstain_is_left_out():
    """Paid, paid, watched, penalty."""
    nan = float("nan")
    scores = torch.tensor([[nan, 1.0, 5.0, 0.0], [nan, nan, 5.0, 0.0], [2.0, nan, nan, 0.0]])
    left = leave_out_abstained(scores, torch.tensor([1.0, 2.0, 0.0, 1.0]))
    assert left[1].isnan().all()
    assert torch.equal(left[[0, 2]].nan_to_num(9), scores[[0, 2]].nan_to_num(9))
    only_watched = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert torch.equal(
        leave_out_abstained(scores, only_watched).nan_to_num(9), scores.nan_to_num(9)
    )


def test_the_worst_score_is_of_those_that_were_given():
    nan = float("nan")
    scores = torch.tensor([[nan, 0.0], [2.0, 0.0], [3.0, 0.0], [9.0, 0.0]])
    ended = torch.tensor([True, True, True, False])
    paid = pay_truncated(scores, ended, torch.tensor([1.0, 1.0]), 1.0)
    assert paid[3].tolist() == [2.0, -1.0]
    assert paid[0, 0].isnan()
