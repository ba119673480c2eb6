"""A scheduler stops the runner with SIGTERM.

Training saves, the exit code is 75, and the same command ends with the weights of a run that was
not stopped.
"""

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


def without_model(straight: Path, folder: Path) -> Path:
    """A copy of the store without the model."""
    shutil.copytree(
        straight / "store", folder / "store", ignore=shutil.ignore_patterns("pretrain-*")
    )
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run that was not stopped, in one process."""
    folder = tmp_path_factory.mktemp("straight")
    llmstages(*TRAIN, folder=folder)
    return folder


def stop_after_checkpoint(
    folder: Path, launch: str, number: int, group: bool = False
) -> tuple[int, str]:
    """Start training, and send a signal once there is a checkpoint; exit code and output.

    Args:
        group: send it to the whole process group, as a terminal does.
    """
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
    send = os.killpg if group else os.kill
    send(process.pid, number)
    out = process.communicate(timeout=120)[0]
    assert "Traceback" not in out, out[-3000:]
    return process.returncode, out


@pytest.mark.parametrize(
    "launch, number, group, code",
    [
        ("inline", signal.SIGTERM, False, 75),
        pytest.param("single", signal.SIGTERM, False, 75, marks=pytest.mark.slow),
        pytest.param("ddp", signal.SIGTERM, False, 75, marks=pytest.mark.slow),
        pytest.param("single", signal.SIGINT, True, 130, marks=pytest.mark.slow),
        pytest.param("inline", signal.SIGINT, True, 130, marks=pytest.mark.slow),
        pytest.param("ddp", signal.SIGINT, True, 130, marks=pytest.mark.slow),
        pytest.param("ddp", signal.SIGTERM, True, 75, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_is_saved_and_continues(straight, tmp_path, launch, number, group, code):
    folder = without_model(straight, tmp_path)
    exit_code, out = stop_after_checkpoint(folder, launch, number, group)
    assert exit_code == code, out[-3000:]
    assert "pretrain: saved after update" in out
    assert (
        "stopped in step 'pretrain'; finished steps are kept, "
        "the same command continues from here, after update"
    ) in out
    done = llmstages(*TRAIN, f"launch={launch}", folder=folder)
    assert "pretrain resumes" in done.err
    assert "continues after update" in done.err
    assert done.states["pretrain"] == "resumed"
    reference = straight
    if launch == "ddp":
        # Two processes add numbers in another order than one, so they have their own reference.
        reference = without_model(straight, tmp_path / "ddp")
        llmstages(*TRAIN, "launch=ddp", folder=reference)
    assert record(folder)["files"] == record(reference)["files"], "weights and log, to the bit"
