"""Training that is stopped anywhere ends with the same bits as training that is not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmstages.core import atomic
from llmstages.core.errors import StageError
from llmstages.core.exit_codes import STOPPED
from tests.train.training_steps import inputs_of, perform

ROOT = Path(__file__).parents[2]


def stop(kind, folder, inputs, update, **options):
    """Run a stage and stop it at an update."""
    with pytest.raises(SystemExit) as ended:
        perform(kind, folder, inputs, update, **options)
    assert ended.value.code == 75
    assert json.loads((folder / STOPPED).read_text())["update"] == update


SLOW_KINDS = ("sft", "sft-new-tokens", "reward", "dpo")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """For a stage: its inputs, and the files and metrics that it gives without a stop."""
    results: dict[str, Any] = {}

    def run(kind):
        if kind not in results:
            folder = tmp_path_factory.mktemp(kind)
            inputs = inputs_of(kind, folder)
            results[kind] = inputs, *perform(kind, folder / "straight", inputs)
        return results[kind]

    return run


@pytest.mark.parametrize(
    "updates",
    [(1, 8, 40), pytest.param(range(1, 41), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_every_update_of_a_run_can_be_the_last(tmp_path, undisturbed, updates):
    inputs, straight, metrics = undisturbed("pretrain")
    assert metrics["updates"] >= 40, metrics
    for update in updates:
        folder = tmp_path / str(update)
        stop("pretrain", folder, inputs, update)
        assert perform("pretrain", folder, inputs)[0] == straight, f"stopped after update {update}"


def test_stopped_again_and_again(tmp_path, undisturbed):
    inputs, straight, _ = undisturbed("pretrain")
    said: list[str] = []
    for update in (3, 4, 11):
        stop("pretrain", tmp_path, inputs, update, say=said)
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    starts = [line.split()[-1] for line in said if "continues after update" in line]
    assert starts == ["3", "4", "11"]


@pytest.mark.parametrize(
    "kind",
    [
        "sft-lora",
        "grpo",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW_KINDS),
    ],
)
def test_other_stages_continue_with_the_same_bits(tmp_path, undisturbed, kind):
    inputs, straight, metrics = undisturbed(kind)
    last = int(metrics["updates"]) - 1
    assert last >= 5
    for update in sorted({1, 2, 6, last - 1, last}):
        stop(kind, tmp_path / str(update), inputs, update)
        files, _ = perform(kind, tmp_path / str(update), inputs)
        assert files == straight, f"stopped after update {update}"


@pytest.mark.parametrize(
    ("kind", "updates"),
    [
        ("ppo", (2, 4, 6, 8, 10)),
        ("ppo-lora", (4,)),
        ("ppo-head", (10,)),
        ("rloo", (8,)),
        ("rloo-tools", (5,)),
        ("distill", (1, 5)),
    ],
)
def test_rl_continues_with_the_same_bits(tmp_path, undisturbed, kind, updates):
    """PPO stops only where new answers are sampled: checkpoints do not hold the old ones."""
    inputs, straight, metrics = undisturbed(kind)
    assert max(updates) < metrics["updates"]
    for update in updates:
        stop(kind, tmp_path / str(update), inputs, update)
        files, _ = perform(kind, tmp_path / str(update), inputs)
        assert files == straight, f"stopped after update {update}"


def test_a_signal_between_two_samplings_is_followed_after_the_second_update(tmp_path, undisturbed):
    inputs, straight, _ = undisturbed("ppo")
    with pytest.raises(SystemExit):
        perform("ppo", tmp_path, inputs, 3)
    assert json.loads((tmp_path / STOPPED).read_text())["update"] == 4
    assert perform("ppo", tmp_path, inputs)[0] == straight


def test_checkpoints_by_count_change_nothing_and_the_last_ones_stay(tmp_path, undisturbed):
    inputs, straight, _ = undisturbed("pretrain")
    assert perform("pretrain", tmp_path, inputs, save_every=4, save_last=3)[0] == straight
    kept = sorted(path.name for path in (tmp_path / "work" / "checkpoints").iterdir())
    assert len(kept) == 3
    for name in kept:
        assert atomic.damage(tmp_path / "work" / "checkpoints" / name) is None


def test_ctrl_c_saves_too(tmp_path, undisturbed):
    inputs, straight, _ = undisturbed("pretrain")
    with pytest.raises(KeyboardInterrupt):
        perform("pretrain", tmp_path, inputs, 5, sent=signal.SIGINT)
    said: list[str] = []
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    assert any("continues after update 5" in line for line in said)


def test_another_number_of_processes_or_rows_is_refused(tmp_path, undisturbed):
    inputs, _, _ = undisturbed("pretrain")
    stop("pretrain", tmp_path, inputs, 3)
    with pytest.raises(StageError, match="micro_batch_size=2; with 4"):
        perform("pretrain", tmp_path, inputs, micro_batch_size=4)
    home = next((tmp_path / "work" / "checkpoints").iterdir())
    about = atomic.read_manifest(home)
    (home / atomic.MANIFEST).unlink()
    atomic.seal(home, home.with_name("as of two"), {**about, "processes": 2})
    (home.with_name("as of two")).rename(home)
    with pytest.raises(StageError, match="with 2 processes and would now continue with 1"):
        perform("pretrain", tmp_path, inputs)


def start(processes, *words):
    """Start tests/launch/spread.py in one process, or under torchrun in several.

    It has a process group of its own, so that all of it can be killed.
    """
    torchrun = []
    if processes > 1:
        torchrun = [
            "torch.distributed.run",
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=localhost:0",
            f"--nproc_per_node={processes}",
            "-m",
        ]
    return subprocess.Popen(
        [sys.executable, "-m", *torchrun, "tests.launch.spread", *map(str, words)],
        cwd=ROOT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def result(process):
    """The JSON that a process printed last."""
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("kind", "updates"),
    [
        ("pretrain", (41,)),
        pytest.param("pretrain", range(1, 41), marks=pytest.mark.slow),
        pytest.param("sft", (1, 2, 5, 9), marks=pytest.mark.slow),
    ],
)
def test_two_processes_continue_with_the_same_bits_when_one_is_stopped(tmp_path, kind, updates):
    outcomes = result(start(2, "stop", kind, tmp_path, *updates))
    straight = outcomes.pop("straight")
    assert len(outcomes) == len(updates)
    assert {first for first, _ in outcomes.values()} == {"left 75"}
    assert [update for update, (_, then) in outcomes.items() if then != straight] == []


def test_a_bad_number_in_one_process_stops_all_and_all_name_it(tmp_path):
    first, second = result(start(2, "bad", "pretrain", tmp_path))["told"]
    (message, weights_kept), (other_message, other_weights_kept) = first, second
    assert message == other_message
    reason = "the loss is not finite at update 3; stopped before the weights changed. "
    assert reason + "Rows of it: process 1: " in message
    assert weights_kept
    assert other_weights_kept


@pytest.mark.parametrize(
    ("processes", "kills"),
    [
        (1, 1),
        pytest.param(1, 20, marks=pytest.mark.slow),
        pytest.param(2, 20, marks=pytest.mark.slow),
    ],
)
def test_killed_while_it_saves(tmp_path, processes, kills):
    straight = result(start(processes, "stop", "pretrain", tmp_path))["straight"]
    draw = random.Random(processes)
    work, done = tmp_path / "killed" / "work", 0
    while done < kills:
        process = start(processes, "save", "pretrain", tmp_path)
        wanted = draw.randrange(1, 8)  # of the saves after it continued
        seen: set[str] = set()
        while process.poll() is None and len(seen) < wanted:
            seen |= {path.name for path in work.glob("checkpoint-*")}
            time.sleep(0.0005)
        time.sleep(draw.choice((0, 0.001, 0.004, 0.01, 0.03)))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            done += 1
        else:
            assert result(process)["made"] == straight, f"after {done} kills"
            shutil.rmtree(tmp_path / "killed")
        process.communicate()
    assert result(start(processes, "save", "pretrain", tmp_path))["made"] == straight


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed"),
    ],
)
def test_a_full_disk_while_saving_leaves_the_one_before(tmp_path, undisturbed, monkeypatch, error):
    import torch

    inputs, straight, _ = undisturbed("pretrain")
    real, calls = torch.save, []

    def save(value, path, *rest, **more):
        calls.append(str(path))
        if sum("optimizer" in call for call in calls) == 3:
            raise error
        return real(value, path, *rest, **more)

    monkeypatch.setattr(torch, "save", save)
    reason = "No space left on device for a checkpoint of pretrain; the one before it is kept"
    with pytest.raises(OSError, match=reason):
        perform("pretrain", tmp_path, inputs, save_every=4)
    monkeypatch.undo()
    kept = sorted(path.name for path in (tmp_path / "work" / "checkpoints").iterdir())
    assert kept == ["update-00000004", "update-00000008"]
    assert not list((tmp_path / "work").glob("checkpoint-*"))
    said: list[str] = []
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    assert any("continues after update 8" in line for line in said)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, undisturbed):
    inputs, straight, _ = undisturbed("pretrain")
    with pytest.raises(SystemExit):
        perform("pretrain", tmp_path, inputs, 9, save_every=4)
    newest = sorted((tmp_path / "work" / "checkpoints").iterdir())[-1]
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-1])
    said: list[str] = []
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    assert any("damaged" in line and newest.name in line for line in said)
    assert any("continues after update 8" in line for line in said)
