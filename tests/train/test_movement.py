"""A training that changes no weight is an error that says why."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.text.messages import message
from tests.tiny import saved
from tests.train.training_steps import inputs_of, perform


@pytest.mark.parametrize("kind", ["pretrain", "sft", "sft-lora", "reward", "dpo"])
def test_a_rate_below_rounding_is_an_error(tmp_path, kind):
    inputs = inputs_of(kind, tmp_path / "in")
    with pytest.raises(StageError, match="changed no weight.*raise .*learning_rate"):
        perform(kind, tmp_path / "a", inputs, learning_rate=1e-30, epochs=0.3, weight_decay=0.0)


def test_a_gradient_of_zero_is_an_error(tmp_path, monkeypatch):
    from transformers import Trainer

    def zero_loss(self, model, inputs, return_outputs=False, **_):
        outputs = model(input_ids=inputs["input_ids"])
        loss = 0.0 * outputs.logits.sum()
        return (loss, outputs) if return_outputs else loss

    monkeypatch.setattr(Trainer, "compute_loss", zero_loss)
    inputs = inputs_of("pretrain", tmp_path / "in")
    with pytest.raises(StageError, match="the gradient was 0 in every update"):
        perform("pretrain", tmp_path / "a", inputs, epochs=0.3, weight_decay=0.0)


def test_answers_that_are_all_equal_leave_a_policy_as_it_was_with_a_line(tmp_path):
    inputs = inputs_of("grpo", tmp_path / "in")
    problems = [
        {"prompt": [message("user", f"{n}+1=?")], "answer": "nobody says this", "meta": "{}"}
        for n in range(12)
    ]
    inputs["problems"] = saved(tmp_path / "q", "problems", problems)
    said: list[str] = []
    perform("grpo", tmp_path / "a", inputs, say=said, max_steps=2, truncated="none", beta=0.0)
    assert any("nothing to learn from" in line for line in said)
