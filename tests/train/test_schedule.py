"""The rate of each update: the first one counts, and the peak is reached."""

from __future__ import annotations

import dataclasses as dc
from types import SimpleNamespace

import pytest
import torch
from transformers import get_scheduler

from llmstages.plugins.pretrain import optimizers
from llmstages.train.schedule import count_first_update
from tests.train.training_steps import PRETRAIN

PEAK = 0.5


def rates(kind, steps, warmup_steps, **options):
    """The rates of all updates under a Trainer's scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=PEAK)

    class Trainer:
        lr_scheduler = None
        args = SimpleNamespace(get_warmup_steps=lambda _: warmup_steps)

        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = get_scheduler(
                kind,
                optimizer,
                num_warmup_steps=warmup_steps,
                num_training_steps=num_training_steps,
                scheduler_specific_kwargs=options,
            )
            return self.lr_scheduler

    trainer = Trainer()
    count_first_update(trainer)
    scheduler = trainer.create_scheduler(steps, optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"] / PEAK)
        optimizer.step()
        scheduler.step()
    assert trainer.create_scheduler(steps, optimizer) is trainer.lr_scheduler
    return found


WSD = {"num_decay_steps": 4, "min_lr_ratio": 0.05, "decay_type": "linear"}
KINDS = [
    ("linear", {}),
    ("cosine", {}),
    ("constant_with_warmup", {}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.05}),
    ("warmup_stable_decay", WSD),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 5])
def test_no_update_is_at_a_rate_of_0_and_the_peak_is_reached(kind, options, warmup_steps):
    found = rates(kind, 12, warmup_steps, **options)
    assert all(rate > 0 for rate in found)
    assert found[warmup_steps] == pytest.approx(1.0)
    expected = [(step + 1) / (warmup_steps + 1) for step in range(warmup_steps)]
    assert found[:warmup_steps] == pytest.approx(expected)


def test_a_run_of_one_update_has_the_peak_rate():
    assert rates("linear", 1, 0) == [1.0]


@pytest.mark.parametrize("decay", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("warmup_steps", [0, 2])
def test_the_decay_of_wsd_begins_at_the_peak(decay, warmup_steps):
    config = dc.replace(PRETRAIN, schedule="wsd", decay=decay)
    arguments = optimizers.schedule(config, 10, warmup_steps)
    found = rates(
        arguments["lr_scheduler_type"], 10, warmup_steps, **arguments["lr_scheduler_kwargs"]
    )
    assert max(found) == pytest.approx(1.0)
    falling = found[found.index(max(found)) :]
    assert falling == sorted(falling, reverse=True)
