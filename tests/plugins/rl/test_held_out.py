"""Held-out problems: no update sees them, what is measured on them is logged, alarms go by them."""

from __future__ import annotations

import dataclasses as dc

import pytest
import torch
from safetensors.torch import load_file

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.rl import alarms, held_out, policy, signals
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.ppo import PPO, PPOConfig
from llmstages.plugins.rl.rloo import RLOO, RLOOConfig
from llmstages.text.environments import spec_text
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model

OPTIONS = {
    "max_steps": 4,
    "batch_size": 8,
    "max_completion_length": 10,
    "learning_rate": 3e-3,
    "beta": 0.0,
    "truncated": "none",
    "rewards": {"exact_answer": {"use": "exact_answer"}},
    "log_every": 1,
    "held_out": 5,
    "held_out_steps": 2,
}
GROUPS = {**OPTIONS, "num_generations": 4}
VARIANTS = {
    "grpo": (GRPO, GRPOConfig(**GROUPS)),
    "rloo": (RLOO, RLOOConfig(**GROUPS)),
    "ppo": (PPO, PPOConfig(**OPTIONS)),
}


def problem(text, meta="{}"):
    return {"prompt": [message("user", text)], "answer": "1", "group": "all", "meta": meta}


ROWS = [problem(f"{number}?") for number in range(21)]


class Recorded:
    """A reward that remembers which prompts it was asked about."""

    def __init__(self, weight, score):
        self.config = type("config", (), {"weight": weight})
        self.value = score
        self.asked = []

    def score(self, prompts, completions, rows):
        self.asked.append([prompt[-1]["content"] for prompt in prompts])
        return [self.value(text) for text in completions]


def letters(text):
    return float(text.count("e"))


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    rewards = {"proxy": Recorded(2.0, letters), "gold": Recorded(0.0, lambda x: -letters(x))}
    monkeypatch.setattr(policy, "open_rewards", lambda *_: rewards)
    return {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }, rewards


@pytest.mark.parametrize("name", VARIANTS)
def test_no_update_sees_them_and_both_rewards_are_logged(tmp_path, inputs, name):
    artifacts, rewards = inputs
    stage, config = VARIANTS[name]
    made, metrics = perform(stage, tmp_path / "rl", config, **artifacts)
    measured = [asked for asked in rewards["gold"].asked if len(asked) == 5]
    practiced = {text for asked in rewards["gold"].asked if len(asked) != 5 for text in asked}
    assert len(measured) == 3 and len(set(map(tuple, measured))) == 1
    assert not practiced & set(measured[0]) and metrics["problems"] == 16
    assert any("5 of 21 problems are held out" in line for line in perform.said)
    log = list(tables.read_lines(made.path / "log.jsonl"))
    rows = {row["step"]: row for row in log if "signals/held_out_paid" in row}
    assert list(rows) == [1, 2, 4]
    for row in rows.values():
        assert row["signals/held_out_paid"] == pytest.approx(-2 * row["signals/held_out_gold"])
        assert row["signals/held_out_paid_std"] == pytest.approx(
            2 * row["signals/held_out_gold_std"]
        )
    assert rows[1]["signals/held_out_gap_gold"] == 0.0
    assert "signals/held_out_proxy" not in rows[1]  # it is the sum


def test_measuring_changes_nothing(tmp_path, inputs):
    """The same practice problems, measured or not, give the same policy."""
    artifacts, _ = inputs
    config = GRPOConfig(**GROUPS)
    one, _ = perform(GRPO, tmp_path / "measured", config, **artifacts)
    seldom = dc.replace(config, held_out_steps=100, log_every=4)
    other, _ = perform(GRPO, tmp_path / "seldom", seldom, **artifacts)
    first, second = (load_file(at.path / "model.safetensors") for at in (one, other))
    assert all(torch.equal(first[key], second[key]) for key in first)


def context(said):
    return Context("rl", None, None, {}, say=said.append)  # type: ignore[arg-type]


def test_copies_of_a_held_out_problem_are_in_neither():
    said = []
    rows = [*ROWS[:4], problem("0?"), problem(" 1?"), problem("2? ")]
    practice, kept = held_out.split(rows, 2, 0, context(said))
    texts = [{row["prompt"][0]["content"].strip() for row in part} for part in (practice, kept)]
    assert len(kept) == 2 and not texts[0] & texts[1] and len(texts[0] | texts[1]) == 4
    assert held_out.split(rows, 2, 0, context([]))[1] == kept
    assert held_out.split(rows, 0, 0, context([])) == (rows, [])
    with pytest.raises(StageError, match="rl.held_out=4 leaves nothing to practice on"):
        held_out.split(rows, 4, 0, context([]))


def test_episodes_that_begin_alike_are_different_problems():
    rows = [problem("go", spec_text({"use": "x"}, seed, 4)) for seed in range(6)]
    practice, kept = held_out.split(rows, 2, 0, context([]))
    assert len(practice) == 4 and len(kept) == 2


def rows_of(paid, gold, every=2):
    """A log in which training shows no gap, and held-out problems do at every second row."""
    rows = []
    for step in range(1, 31):
        row = {"step": step, "reward": 1.0, "rewards/gold/mean": 1.0 + step / 10}
        if step % every == 0 or step == 1:
            row |= {
                "signals/held_out_paid": paid(step),
                "signals/held_out_paid_std": 1.0,
                "signals/held_out_gold": gold(step),
                "signals/held_out_gold_std": 0.5,
            }
        rows.append(row)
    return rows


def test_the_alarm_goes_by_held_out_problems_where_they_are_measured():
    rows = rows_of(lambda step: step / 10, lambda step: 1 - step / 50)
    (alarm,) = signals.alarms_of(rows, ["gold"])
    assert alarm.signal == "gap/gold" and 6 < alarm.update < 16
    assert not list(signals.alarms_of(rows_of(lambda s: s / 10, lambda s: s / 50), ["gold"]))


def test_the_best_policy_is_that_of_the_best_measurement():
    values = {1: 1.0, 2: 3.0, 4: 2.0}
    rows = [
        {"step": step, "rewards/gold/mean": step}
        | ({"signals/held_out_gold": values[step]} if step in values else {})
        for step in range(1, 5)
    ]
    best = [alarms.is_best(rows[: end + 1], ["gold"]) for end in range(4)]
    assert best == [True, True, False, False]


def test_gaps_are_in_spreads_of_the_beginning():
    def row(paid, gold):
        return {
            "signals/held_out_paid": paid,
            "signals/held_out_paid_std": 2.0,
            "signals/held_out_gold": gold,
            "signals/held_out_gold_std": 0.5,
        }

    log = [{"loss": 1.0}, row(1.0, 1.0), row(9.0, 9.0)]
    assert held_out.gaps(log, row(3.0, 0.5), ["gold"]) == {"signals/held_out_gap_gold": 1.0 + 1.0}
    assert held_out.gaps([], row(3.0, 0.5), ["gold"]) == {"signals/held_out_gap_gold": 0.0}


def test_measurements_stand_in_rows_of_their_own():
    with pytest.raises(ValueError, match="held_out_steps=5 must be a multiple of log_every=2"):
        GRPOConfig(held_out=10, held_out_steps=5, log_every=2)
    assert GRPOConfig(held_out_steps=5, log_every=2).held_out == 0
