"""Options of every training stage: their ranges, and the arguments of the Trainer that follow."""

from __future__ import annotations

import dataclasses as dc

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.train.arguments import Optimization, engine_arguments, training_arguments


@pytest.mark.parametrize(
    "name, value",
    [
        ("seed", -1),
        ("seed", 2**32),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("batch_size", 0),
        ("warmup_steps", -1),
        ("weight_decay", -0.1),
        ("max_grad_norm", 0.0),
        ("micro_batch_size", -1),
        ("log_every", 0),
        ("spike_threshold", -1.0),
        ("save_minutes", -1.0),
        ("save_every", -1),
        ("save_last", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(StageError, match=rf"sft\.{name} is "):
        build_config(Optimization, {name: value}, "sft")


def context(folder, **options):
    said: list[str] = []
    return Context("sft", folder, folder, {}, say=said.append, **options), said


def test_a_batch_is_shared_by_processes_and_micro_batches(tmp_path):
    config = Optimization(batch_size=16, micro_batch_size=2)
    ctx, _ = context(tmp_path, processes=4)
    arguments = training_arguments(config, ctx)
    assert arguments["per_device_train_batch_size"] == 2
    assert arguments["gradient_accumulation_steps"] == 2
    whole = training_arguments(dc.replace(config, micro_batch_size=0), ctx)
    assert whole["per_device_train_batch_size"] == 4
    assert whole["gradient_accumulation_steps"] == 1
    uneven = "cannot be shared by 4 processes in parts of 3 rows; choose a multiple of 12"
    with pytest.raises(StageError, match=uneven):
        training_arguments(dc.replace(config, micro_batch_size=3), ctx)


@pytest.mark.parametrize("steps, warmup", [(0, 20), (1000, 20), (100, 20), (50, 10), (2, 0)])
def test_the_warm_up_is_at_most_a_fifth_of_a_short_run(tmp_path, steps, warmup):
    ctx, said = context(tmp_path)
    arguments = training_arguments(Optimization(warmup_steps=20), ctx, max_steps=steps)
    assert arguments["warmup_steps"] == warmup
    assert bool(said) is (warmup < 20)


def test_a_stage_that_needs_its_whole_model_refuses_sharded_weights(tmp_path, monkeypatch):
    ctx, _ = context(tmp_path)
    assert engine_arguments(ctx, sharded=False) == {"deepspeed": None}
    monkeypatch.setenv("LLMSTAGES_DEEPSPEED", '{"zero_optimization": {"stage": 3}}')
    with pytest.raises(StageError, match="use launch=zero2 or launch=ddp"):
        engine_arguments(ctx, sharded=False)
    sharded = engine_arguments(ctx, sharded=True)
    assert sharded["deepspeed"] == {"zero_optimization": {"stage": 3}}
