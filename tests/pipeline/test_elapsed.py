"""The time of a resumed step is that of all its attempts."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llmstages.pipeline import elapsed


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def forward(seconds):
        now[0] += seconds

    return forward


def checkpoint(folder, at):
    path = folder / "work" / "checkpoints" / "update-00000001"
    path.mkdir(parents=True, exist_ok=True)
    os.utime(path, (at, at))


def test_attempts_add_up(tmp_path, clock):
    assert elapsed.begin(tmp_path, resumes=False) == 0.0
    clock(10)
    elapsed.end(tmp_path)
    clock(500)  # of waiting
    assert elapsed.begin(tmp_path, resumes=True) == 10.0
    clock(5)
    elapsed.end(tmp_path)
    assert elapsed.begin(tmp_path, resumes=True) == 15.0


def test_an_attempt_that_was_killed_counts_up_to_its_checkpoint(tmp_path, clock):
    elapsed.begin(tmp_path, resumes=False)
    checkpoint(tmp_path, at=1007)
    clock(9)
    assert elapsed.begin(tmp_path, resumes=True) == 7.0


def test_an_attempt_that_left_nothing_does_not_count(tmp_path, clock):
    elapsed.begin(tmp_path, resumes=False)
    clock(10)
    elapsed.end(tmp_path)
    assert elapsed.begin(tmp_path, resumes=False) == 0.0


def test_a_note_that_cannot_be_read_costs_its_time_alone(tmp_path, clock):
    (tmp_path / elapsed.FILE).write_text('{"before": 1')
    assert elapsed.begin(tmp_path, resumes=True) == 0.0
    elapsed.end(tmp_path / "gone")


def test_the_record_of_a_resumed_step_has_the_time_of_all(toys, cli):
    path = cli("plan", "--json", "recipe=toy").json["steps"]["toymodel"]["path"]
    folder = toys / path.replace("store/", "store/.tmp/")
    checkpoint(folder, at=1)
    (folder / elapsed.FILE).write_text('{"before": 100, "started": 1000, "ended": 1234}')
    out = cli("run", "recipe=toy").out
    record = json.loads((toys / path / "record.json").read_text())
    assert record["seconds_before"] == 334.0
    assert 334 < record["seconds"] < 400
    assert record["finished"] - record["started"] < 60
    assert "toymodel done in " in out
    assert "5.6 min with what it resumed" in out


@pytest.mark.parametrize("code", [signal.SIGINT, signal.SIGTERM])
def test_a_step_that_was_stopped_is_not_called_failed(toys, code):

    process = subprocess.Popen(
        [sys.executable, "-m", "llmstages", "run", "--json", "recipe=toy"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TOY": "hang"},
    )
    assert process.stderr
    while "toymodel runs" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.6)
    process.send_signal(code)
    out, err = process.communicate(timeout=20)
    assert json.loads(out)["steps"]["toymodel"]["state"] == "stopped"
    assert "toymodel   stopped" in err
