"""A scheduler stops the runner with SIGTERM: training is saved, exit code 75, and the same command ends with the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.chain import COMMAND, environment, llmstages

TRAIN = (
    "run",
    "--json",
    "recipe=smoke",
    "only=pretrain",
    "pretrain.epochs=6",
    "pretrain.max_tokens=100000",
    "pretrain.save_every=1",
)


def record(folder: Path) -> dict:
    return json.loads((folder / "runs/smoke/pretrain/record.json").read_text())


def copied(straight: Path, folder: Path) -> Path:
    """A copy of the store without the model."""
    shutil.copytree(
        straight / "store", folder / "store", ignore=shutil.ignore_patterns("pretrain-*")
    )
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run that nobody disturbed, in one process."""
    folder = tmp_path_factory.mktemp("straight")
    llmstages(*TRAIN, folder=folder)
    return folder


def stopped(folder: Path, launch: str, number: int, group: bool = False) -> tuple[int, str]:
    """Start training and send the runner a signal once there is a checkpoint (to its whole group, as a terminal does); its exit code and output."""
    process = subprocess.Popen(
        [*COMMAND, *TRAIN, f"launch={launch}"],
        cwd=folder,
        env=environment(),
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while not list(folder.glob("store/.tmp/pretrain-*/work/checkpoints/update-*")):
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.02)
    (os.killpg if group else os.kill)(process.pid, number)
    out = process.communicate(timeout=120)[0]
    assert "Traceback" not in out, out[-3000:]
    return process.returncode, out


@pytest.mark.parametrize(
    "launch, number, group, code",
    [
        ("inline", signal.SIGTERM, False, 75),
        ("single", signal.SIGTERM, False, 75),
        ("ddp", signal.SIGTERM, False, 75),
        ("single", signal.SIGINT, True, 130),
        pytest.param("inline", signal.SIGINT, True, 130, marks=pytest.mark.slow),
        pytest.param("ddp", signal.SIGINT, True, 130, marks=pytest.mark.slow),
        pytest.param("ddp", signal.SIGTERM, True, 75, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_is_saved_and_goes_on(straight, tmp_path, launch, number, group, code):
    folder = copied(straight, tmp_path)
    left, out = stopped(folder, launch, number, group)
    assert left == code, out[-3000:]
    assert (
        "pretrain: saved after update" in out
        and "stopped in step 'pretrain'; finished steps are kept, the same command continues from here, after update"
        in out
    )
    done = llmstages(*TRAIN, f"launch={launch}", folder=folder)
    assert (
        "pretrain resumes" in done.err
        and "continues after update" in done.err
        and done.states["pretrain"] == "resumed"
    )
    reference = straight
    if launch == "ddp":  # other sums than one process, so its own reference
        reference = copied(straight, tmp_path / "ddp")
        llmstages(*TRAIN, "launch=ddp", folder=reference)
    assert record(folder)["files"] == record(reference)["files"], "weights and log, to the bit"
