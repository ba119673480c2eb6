"""Numbers that are not finite never reach the weights, and the message names their rows."""

from __future__ import annotations

import random

import pytest

from llmstages.core.errors import StageError
from llmstages.train import callbacks
from tests.train.training_steps import inputs_of, perform

BAD = (float("nan"), float("inf"), float("-inf"))


def plant(monkeypatch, what, at, value, micro=1):
    """Put a bad number into update ``at``; returns a dictionary of what was seen there.

    what: "loss", "gradient", or "data" for the embeddings of its rows.
    """
    from transformers import Trainer

    seen = {"calls": 0, "weights": None}
    real = Trainer.training_step

    def training_step(self, model, inputs, *rest, **more):
        seen["calls"] += 1
        here = self.state.global_step + 1 == at and seen["calls"] % micro == 0
        if here:
            seen["weights"] = {name: p.detach().clone() for name, p in model.named_parameters()}
            seen["model"] = model
        if here and what == "data":
            # as a broken row would: an activation that is not finite
            handle = model.get_input_embeddings().register_forward_hook(
                lambda module, given, out: out * value
            )
        loss = real(self, model, inputs, *rest, **more)
        if here and what == "data":
            handle.remove()
        if here and what == "gradient":
            list(model.parameters())[seen["calls"] % 5].grad.view(-1)[0] = value
        return loss * value if here and what == "loss" else loss

    monkeypatch.setattr(Trainer, "training_step", training_step)
    return seen


@pytest.mark.parametrize(
    "kind",
    ["pretrain", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sft", "reward"))],
)
def test_thirty_planted_numbers_never_reach_the_weights(tmp_path, monkeypatch, kind):
    import torch

    inputs = inputs_of(kind, tmp_path)
    places = [
        (what, value, at)
        for what in ("data", "loss", "gradient")
        for value in BAD
        for at in ((1, 4) if kind == "pretrain" else (2,))
    ]
    for number, (what, value, at) in enumerate(places):
        with monkeypatch.context() as patch:
            seen = plant(patch, what, at, value)
            reason = (
                rf"the (loss|gradient) is not finite at update {at}; stopped before the weights "
                r"changed. Rows of it: .*\d"
            )
            with pytest.raises(StageError, match=reason):
                perform(kind, tmp_path / str(number), inputs)
        for name, weights in seen["model"].named_parameters():
            assert torch.equal(weights, seen["weights"][name]), (what, value, at)


def test_the_rows_named_are_those_of_the_bad_micro_batch(tmp_path, monkeypatch):
    inputs = inputs_of("pretrain", tmp_path)
    rows = []

    class Noting(callbacks.RowRecorder):
        def __call__(self, batch):
            rows.append([row["row"] for row in batch])
            return super().__call__(batch)

    monkeypatch.setattr(callbacks, "RowRecorder", Noting)
    plant(monkeypatch, "loss", 3, float("nan"), micro=2)  # the second of two micro batches
    with pytest.raises(StageError) as error:
        perform("pretrain", tmp_path / "one", inputs)
    assert f"Rows of it: {', '.join(map(str, rows[5]))}. Look" in str(error.value)


def test_spikes_stand_out_from_noise():
    draw, spikes = random.Random(0), callbacks.Spikes(6.0)
    planted, skipped = list(range(270, 2000, 90)), []
    for update in range(2000):
        loss = 5 * 0.999**update + 1 + draw.gauss(0, 0.05)
        norm = 0.5 + draw.gauss(0, 0.05)
        if update in planted and update % 180:
            loss += 3
        elif update in planted:
            norm += 4
        if spikes.is_spike(loss, norm):
            skipped.append(update)
    assert skipped == planted
    assert len(skipped) >= 20
    again = callbacks.Spikes(6.0)
    again.restore(spikes.state())
    assert again.state() == spikes.state()
    assert again.skipped == len(skipped)


@pytest.mark.parametrize("shift", [7, 10, 20, 100])
def test_a_new_level_is_learned_after_a_few_updates(shift):
    draw, spikes = random.Random(0), callbacks.Spikes(6.0)
    for _ in range(200):
        spikes.is_spike(2 + draw.gauss(0, 0.05), 0.5)
    assert spikes.skipped == 0
    skipped = [spikes.is_spike(2 + 0.05 * shift + draw.gauss(0, 0.05), 0.5) for _ in range(500)]
    assert sum(skipped) <= 5
    assert not any(skipped[20:])


def test_a_spike_is_skipped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "WINDOW", 16)
    inputs = inputs_of("pretrain", tmp_path)
    straight, _ = perform("pretrain", tmp_path / "straight", inputs)
    said: list[str] = []
    watched, _ = perform("pretrain", tmp_path / "on", inputs, say=said, spike_threshold=12.0)
    assert watched == straight, "nothing stood out, nothing changed"
    assert not any("skipped" in line for line in said)
    seen = plant(monkeypatch, "gradient", 30, 1e6)
    made, _ = perform("pretrain", tmp_path / "spike", inputs, say=said, spike_threshold=12.0)
    assert any("update 30 skipped" in line for line in said)
    assert any("1 updates were skipped" in line for line in said)
    assert seen["calls"]
    assert made != straight


@pytest.mark.parametrize(
    ("speed", "text"),
    [
        (0.043, "0.043 tok/s"),
        (7.31, "7.31 tok/s"),
        (51.2, "51.2 tok/s"),
        (999.4, "999 tok/s"),
        (999.6, "1k tok/s"),
        (12_345, "12.3k tok/s"),
        (1_250_000, "1.25M tok/s"),
    ],
)
def test_speeds_have_units_that_fit_them(speed, text):
    assert callbacks.format_speed(speed) == text


@pytest.mark.parametrize("kind", ["sft", "dpo", "reward", "grpo"])
def test_every_training_shows_its_speed(tmp_path, monkeypatch, kind):
    """Also where the tokens of an update are not known before."""
    notes = []

    def spy(tokens_per_second):
        notes.append(tokens_per_second)
        return "spied"

    monkeypatch.setattr(callbacks, "format_speed", spy)
    perform(kind, tmp_path / "run", inputs_of(kind, tmp_path))
    assert len(notes) >= 3 and all(speed > 1 for speed in notes)
