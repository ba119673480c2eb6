"""kill -9 at random moments of the whole chain: nothing half is ever visible, and the end is that of an undisturbed run."""

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


def killed(folder: Path, moment: float) -> bool:
    """Start the chain and kill it after so many seconds; False if it was done before."""
    process = start(folder)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(100):  # helpers of the killed process end by themselves
        if not alive(process.pid):
            break
        time.sleep(0.1)
    assert not alive(process.pid), "processes outlive the run"
    return process.returncode == -signal.SIGKILL


def alive(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def disturbed(folder: Path, kills: int, seed: int, seconds: float) -> None:
    """Kill the chain so many times, at moments spread over it, going on from what each attempt left."""
    rng, done, before = random.Random(seed), 0, set()
    while done < kills:
        if killed(folder, rng.uniform(0.3, seconds)):
            done += 1
            after = assert_nothing_half(folder) if (folder / "store").exists() else set()
            assert before <= after, "a finished step is gone"
            before = after
        else:  # done before its time: begin anew
            assert_nothing_half(folder)
            shutil.rmtree(folder / "store")
            before = set()


def check_end(folder: Path, smoke) -> None:
    kept = assert_nothing_half(folder)
    done = llmstages(*SMOKE, folder=folder)
    reused = {
        Path(os.readlink(folder / step["path"])).name
        for step in done.json["steps"].values()
        if step["state"] == "reused"
    }
    assert reused == kept, "what was finished before a kill is used after it"
    assert digests(folder) == digests(smoke.folder)
    assert not list((folder / "store/.tmp").iterdir()), "no leftovers"
    assert "0 damaged" in llmstages("verify", "recipe=smoke", folder=folder).out


def test_killed_three_times_the_chain_ends_as_if_undisturbed(smoke, tmp_path):
    disturbed(tmp_path, 3, seed=0, seconds=smoke.seconds)
    check_end(tmp_path, smoke)


@pytest.mark.slow
def test_killed_twenty_times_the_chain_ends_as_if_undisturbed(smoke, tmp_path):
    disturbed(tmp_path, 20, seed=1, seconds=smoke.seconds)
    check_end(tmp_path, smoke)


def test_two_runs_at_once_share_the_work(smoke, tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    outs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    states = [
        {name: step["state"] for name, step in json.loads(out.splitlines()[-1])["steps"].items()}
        for out in outs
    ]
    twice = [
        name
        for name in states[0]
        if sorted([states[0][name], states[1][name]]) != ["new", "reused"]
    ]
    assert twice == [], "each step is made once, by one of the two"
    assert_nothing_half(tmp_path)
    assert digests(tmp_path) == digests(smoke.folder)
