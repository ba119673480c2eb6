"""Settings that are only about memory and machines change nothing but the last bits.

The stages and rows are those of benchmarks/equivalence.py, whose table has more settings.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "equivalence.py"
# Of the movement. AdamW turns the rounding of a gradient near 0 into a step of that weight.
LIMIT = 2e-5


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("equivalence", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    made = tmp_path_factory.mktemp("equivalence")
    script.make_inputs(made)
    return made


def deviation(script, folder, stage, other):
    plain = script.train(stage, folder, folder / stage / f"plain for {len(other)}", {})
    moved = script.distance(plain, script.start_of(folder, plain))
    return script.distance(plain, other) / moved


@pytest.mark.parametrize("stage", ["pretrain", "sft packed", "sft lora", "reward", "dpo", "grpo"])
def test_the_size_of_micro_batches_is_no_part_of_the_result(script, folder, stage):
    other = script.train(stage, folder, folder / stage / "micro", {"micro_batch_size": 2})
    assert deviation(script, folder, stage, other) < LIMIT


@pytest.mark.slow  # in the default suite PPO and launch=ddp do the same
@pytest.mark.parametrize("stage", ["pretrain", "reward", "dpo"])
def test_two_processes_train_what_one_does(script, folder, stage):
    other = script.train_on_two(stage, folder, folder / stage / "two")
    assert deviation(script, folder, stage, other) < LIMIT
