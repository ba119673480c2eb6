"""Rejection sampling in rounds: it learns more, an interrupted one ends with the same bits, and two
processes keep what one keeps."""

from __future__ import annotations

import json

import pytest

from llmstages.data import tables
from llmstages.plugins.rl import policy
from llmstages.plugins.rl.rejection import Rejection
from llmstages.text import generate
from tests.plugins.rl.test_variants import REWARDS, ROWS, NoThe, all_ended, share_right
from tests.tiny import perform as perform_stage
from tests.tiny import saved, saved_model
from tests.train.test_resume import result, start
from tests.train.training_steps import inputs_of, perform

reply = generate.reply


class Interrupted(Exception):
    """The plug was pulled."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Inputs, and the files and metrics of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("rejection")
    inputs = inputs_of("rejection", folder)
    return inputs, *perform("rejection", folder / "straight", inputs)


def test_every_round_samples_from_the_policy_before(straight):
    _, files, metrics = straight
    rounds = [json.loads(line) for line in files["rounds.jsonl"].splitlines()]
    assert [row["step"] for row in rounds] == [1, 2, 3]
    assert metrics["rounds"] == 3 and metrics["sampled"] == 3 * 8 * 4
    assert metrics["updates"] == sum(row["updates"] for row in rounds) > 3
    steps = [json.loads(line)["step"] for line in files["log.jsonl"].splitlines()]
    assert steps == sorted(steps) and steps[-1] == metrics["updates"], "one curve for all rounds"


@pytest.mark.parametrize("calls", [1, 3, 4, 6, 9, 11])
def test_a_round_that_is_interrupted_samples_only_what_is_missing(
    tmp_path, monkeypatch, straight, calls
):
    """After so many parts (there are four a round) the plug is pulled, and it starts again."""
    inputs, files, _ = straight
    made = []

    def counted(*args, **kwargs):
        if len(made) == calls:
            raise Interrupted
        made.append(args)
        return reply(*args, **kwargs)

    monkeypatch.setattr(generate, "reply", counted)
    with pytest.raises(Interrupted):
        perform("rejection", tmp_path, inputs)
    made.clear()
    monkeypatch.setattr(generate, "reply", lambda *a, **k: made.append(a) or reply(*a, **k))
    again, _ = perform("rejection", tmp_path, inputs)
    assert len(made) == 12 - calls
    assert again == files


@pytest.mark.parametrize("update", [1, 3])
def test_training_within_a_round_continues_with_the_same_bits(tmp_path, straight, update):
    inputs, files, _ = straight
    with pytest.raises(SystemExit) as ended:
        perform("rejection", tmp_path, inputs, update)
    assert ended.value.code == 75
    assert perform("rejection", tmp_path, inputs)[0] == files


def test_two_processes_keep_what_one_keeps(tmp_path):
    """Each samples its parts, whatever the number of processes; the weights differ by rounding."""
    kept = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        result(start(processes, "stop", "rejection", folder))
        made = folder / "straight"
        rounds = tables.read_lines(made / "out" / "rounds.jsonl")
        assert [row["updates"] > 0 for row in rounds] == [True] * 3
        parts = sorted((made / "work" / "round-1").glob("answers-*.json"))
        assert len(parts) == 4
        first = made / "work" / "round-1" / "policy" / "kept.jsonl"
        kept[processes] = [path.read_text() for path in (*parts, first)]
    assert kept[1] == kept[2]


def test_a_planted_rule_is_learned_better_in_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "reply", all_ended)
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"rule": NoThe()})
    inputs = {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }
    shares = {}
    for rounds in (1, 3):
        config = Rejection.Config(
            rounds=rounds,
            questions=16,
            num_generations=8,
            max_completion_length=10,
            threshold=0.9,
            epochs=4.0,
            learning_rate=3e-3,
            rewards=REWARDS,
        )
        made, metrics = perform_stage(Rejection, tmp_path / f"rl{rounds}", config, **inputs)
        shares[rounds] = share_right(made.path)
    assert metrics["right"] > metrics["right_first"]
    assert shares[3] > shares[1] + 0.05, shares


def test_rounds_end_where_nothing_was_right(tmp_path, monkeypatch):
    """The policy before is the result, and the step says so."""
    inputs = {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }
    config = Rejection.Config(
        rounds=4, questions=4, num_generations=2, max_completion_length=4, rewards=REWARDS
    )
    made, metrics = perform_stage(Rejection, tmp_path / "rl", config, **inputs)
    assert "updates" not in metrics and metrics["sampled"] == 8
    weights = "model.safetensors"
    assert (made.path / weights).read_bytes() == (inputs["policy"].path / weights).read_bytes()
    assert any("left as it is" in line for line in perform_stage.said)
