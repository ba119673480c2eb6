"""kill -9 at random moments of the whole chain.

Nothing half is ever visible, and the end is that of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.chain import (
    COMMAND,
    SMOKE,
    assert_nothing_half,
    digests,
    environment,
    llmstages,
)
from tests.end_to_end.conftest import Chain


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *SMOKE],
        cwd=folder,
        env=environment(),
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def kill_after(folder: Path, seconds: float) -> bool:
    """Start the chain and kill it after so many seconds; False if it was done before."""
    process = start(folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    # The helpers of the killed process end by themselves.
    deadline = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(process.pid), "processes outlive the run"
    return process.returncode == -signal.SIGKILL


def alive(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def kill_repeatedly(folder: Path, kills: int, seed: int, seconds: float) -> None:
    """Kill the chain so many times, at moments spread over its duration.

    Each attempt continues from what the one before it left.
    """
    rng = random.Random(seed)
    done = 0
    finished: set[str] = set()
    while done < kills:
        if kill_after(folder, rng.uniform(0.3, seconds)):
            done += 1
            now_finished = assert_nothing_half(folder) if (folder / "store").exists() else set()
            assert finished <= now_finished, "a finished step is gone"
            finished = now_finished
        else:
            # It was done before its time: begin anew.
            assert_nothing_half(folder)
            shutil.rmtree(folder / "store")
            finished = set()


def check_end(folder: Path, smoke: Chain) -> None:
    """The next run reuses what was finished, and makes what an undisturbed run makes."""
    kept = assert_nothing_half(folder)
    done = llmstages(*SMOKE, folder=folder)
    reused = set()
    for step in done.json["steps"].values():
        if step["state"] == "reused":
            reused.add((folder / step["path"]).readlink().name)
    assert reused == kept, "what was finished before a kill is used after it"
    assert digests(folder) == digests(smoke.folder)
    assert not list((folder / "store/.tmp").iterdir()), "no leftovers"
    assert "0 damaged" in llmstages("verify", "recipe=smoke", folder=folder).out


def test_killed_three_times_the_chain_ends_as_if_undisturbed(smoke, tmp_path):
    kill_repeatedly(tmp_path, 3, seed=0, seconds=smoke.seconds)
    check_end(tmp_path, smoke)


@pytest.mark.slow
def test_killed_twenty_times_the_chain_ends_as_if_undisturbed(smoke, tmp_path):
    kill_repeatedly(tmp_path, 20, seed=1, seconds=smoke.seconds)
    check_end(tmp_path, smoke)


def test_two_runs_at_once_share_the_work(smoke, tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    outs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    first, second = [json.loads(out.splitlines()[-1])["steps"] for out in outs]
    for name, step in first.items():
        states = {step["state"], second[name]["state"]}
        assert states == {"new", "reused"}, f"{name} is made once, by one of the two"
    assert_nothing_half(tmp_path)
    assert digests(tmp_path) == digests(smoke.folder)
