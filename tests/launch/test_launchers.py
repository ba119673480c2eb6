"""Launchers: the wrong number of processes is an error, and two processes train what one trains.

Each command refused here was seen to train one process instead of two, or copies, with exit code 0.
"""

import dataclasses as dc
import importlib.util
import json
import os
import signal
import subprocess
import sys

import pytest

from llmstages.core.config import to_plain
from llmstages.core.errors import StageError
from llmstages.launch import subprocess_runner
from llmstages.launch.config import Launch
from tests.train.training_steps import PRETRAIN, inputs_of

ZERO = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
}
ZERO2 = {"zero_optimization": {"stage": 2}, **ZERO}
ZERO3 = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    **ZERO,
}
FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch")
deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Corpus and tokenizer of a tiny pretraining."""
    return inputs_of("pretrain", tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def frozen(tmp_path, inputs, monkeypatch):
    """frozen(launch, name, **config): the folder of a pretraining step, as the worker gets it."""
    for name in ("ACCELERATE_USE_CPU", "DS_ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)

    def plain(value):
        if value is None:
            return None
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return {**dc.asdict(value), "path": str(value.path)}

    def make(launch, name="step", **config):
        folder = tmp_path / name
        for part in ("out", "work"):
            (folder / part).mkdir(parents=True)
        config = dc.replace(PRETRAIN, epochs=1.0, **config)
        (folder / "step.json").write_text(
            json.dumps(
                {
                    "step": "pretrain",
                    "stage": "pretrain.causal_lm",
                    "config": to_plain(config),
                    "inputs": {name: plain(value) for name, value in inputs.items()},
                    "cwd": str(tmp_path),
                    "processes": launch.process_count(True),
                    "launch": dc.asdict(launch),
                    "cache": str(tmp_path / "cache"),
                }
            )
        )
        return folder

    return make


DDP = Launch(backend="torchrun", processes=2)
SINGLE = Launch(backend="single")


@pytest.mark.parametrize(
    ("command", "variables", "launch", "message"),
    [
        (
            (*ACCELERATE, "--cpu", "--num_processes", "2", "-m"),
            {},
            DDP,
            "asked for 2 processes and the launcher started 1",
        ),
        (
            (*ACCELERATE, "--num_processes", "2", "-m"),
            {},
            DDP,
            "asked for 2 processes and the launcher started 1",
        ),
        (
            (*TORCHRUN, "--nproc_per_node=1", "-m"),
            {},
            DDP,
            "asked for 2 processes and the launcher started 1",
        ),
        (
            (*TORCHRUN, "--nproc_per_node=2", "-m"),
            {},
            SINGLE,
            "asked for 1 processes and the launcher started 2",
        ),
        ((sys.executable, "-m"), {}, DDP, "asked for 2 processes and the launcher started 1"),
        (
            (sys.executable, "-m"),
            {"WORLD_SIZE": "2", "RANK": "1"},
            SINGLE,
            "asked for 1 processes and the launcher started 2",
        ),
        (
            (sys.executable, "-m"),
            {"PMI_SIZE": "4"},
            SINGLE,
            "asked for 1 processes and the launcher started 4",
        ),
        (
            (*TORCHRUN, "--nproc_per_node=2", "-m"),
            {"OMPI_COMM_WORLD_SIZE": "4"},
            DDP,
            "asked for 2 processes and the launcher started 4",
        ),
    ],
    ids=[
        "accelerate cpu",
        "accelerate",
        "torchrun of 1",
        "torchrun of 2",
        "no launcher",
        "in torchrun",
        "in srun",
        "in mpirun",
    ],
)
def test_another_number_of_processes_is_refused(frozen, command, variables, launch, message):
    folder = frozen(launch)
    done = subprocess.run(
        [*command, "llmstages.pipeline.worker", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert done.returncode != 0, done.stderr[-2000:]
    assert not (folder / "metrics.json").exists()
    assert not list((folder / "out").iterdir())
    with pytest.raises(StageError, match=message):
        subprocess_runner.read_result(folder)


@pytest.mark.parametrize(
    ("launch", "variables", "message"),
    [
        pytest.param(
            Launch(backend="torchrun", processes=2, deepspeed=ZERO2),
            {"ACCELERATE_USE_CPU": "true"},
            "run as zero2 on 2 processes, but accelerate started ddp",
            marks=deepspeed,
        ),
        pytest.param(
            Launch(backend="torchrun", processes=2, fsdp=FSDP),
            {"ACCELERATE_USE_CPU": "true"},
            "launch=fsdp needs GPUs",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Launch(backend="torchrun", processes=2, fsdp=FSDP),
            {"ACCELERATE_USE_CPU": "false"},
            "launch=fsdp needs GPUs",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["zero2 made ddp", "fsdp made ddp", "fsdp made copies"],
)
def test_another_strategy_is_refused(frozen, monkeypatch, launch, variables, message):
    if launch.fsdp and has_cuda():
        pytest.skip("there is a GPU")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = frozen(launch)
    with pytest.raises(StageError, match=message):
        subprocess_runner.run(folder, "pretrain", launch, True)
    assert not (folder / "metrics.json").exists()
    assert not list(folder.rglob("*.safetensors"))


@deepspeed
def test_a_step_of_deepspeed_repeated_by_hand_is_not_ddp(frozen):
    """The request is in the frozen step, not in the environment of the runner."""
    folder = frozen(Launch(backend="torchrun", processes=2, deepspeed=ZERO2))
    subprocess.run(
        [*TORCHRUN, "--nproc_per_node=2", "-m", "llmstages.pipeline.worker", str(folder)],
        capture_output=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )
    with pytest.raises(StageError, match="run as zero2 on 2 processes, but accelerate started ddp"):
        subprocess_runner.read_result(folder)


def has_cuda():
    import torch

    return torch.cuda.is_available()


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"PMI_SIZE": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"ACCELERATE_DYNAMO_BACKEND": "NO"},
    ],
    ids=lambda v: next(iter(v)),
)
def test_a_runner_inside_another_launcher_is_refused(cli, variables):
    done = cli("run", "recipe=toy", **variables)
    assert done.code == 2
    assert "started by another launcher" in done.err
    assert "launch=ddp launch.processes=2" in done.err


def test_accelerate_launch_of_the_runner_is_refused(toys):
    done = subprocess.run(
        [*ACCELERATE, "--cpu", "--num_processes", "2", "-m", "llmstages", "run", "recipe=toy"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "started by another launcher (accelerate launch)" in done.stderr
    assert not (toys / "runs").exists()


def train(folder, launch):
    """(losses, weights) of a pretraining step."""
    from safetensors.torch import load_file

    subprocess_runner.run(folder, "pretrain", launch, True)
    out = folder / "out"
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    return losses, load_file(out / "model.safetensors")


@pytest.mark.parametrize(
    "kind",
    [
        "ddp",
        pytest.param("zero2", marks=[pytest.mark.slow, deepspeed]),
        pytest.param("zero3", marks=[pytest.mark.slow, deepspeed]),
    ],
)
def test_two_processes_train_what_one_trains(frozen, kind):
    losses, weights = train(frozen(SINGLE, "one"), SINGLE)
    settings = {"zero2": ZERO2, "zero3": ZERO3}.get(kind, {})
    launch = Launch(backend="torchrun", processes=2, cpu=True, deepspeed=settings)
    assert launch.strategy == kind
    other_losses, other_weights = train(frozen(launch, "two"), launch)
    assert len(losses) >= 3
    assert other_losses == pytest.approx(losses, abs=1e-5)
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        assert (weight - other_weights[name]).abs().max().item() < 1e-4


def test_a_stopped_torchrun_ends_without_a_traceback(frozen):
    """It has the time that it needs: torchrun itself kills workers after half a minute."""
    folder = frozen(DDP, save_every=1)
    process = subprocess.Popen(
        DDP.command(folder, True),
        env={**os.environ, **DDP.environment(True)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(folder.glob("work/checkpoints/update-*")):
        assert process.poll() is None
    subprocess_runner.ask_to_save(process)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert subprocess_runner.read_stop(folder)["signal"] == signal.SIGTERM
    with pytest.raises(SystemExit):
        subprocess_runner.read_result(folder)
