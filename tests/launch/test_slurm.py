"""Steps as Slurm jobs: finished, preempted, warned, failed, cancelled, refused (fake_slurm.py)."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.launch.config import Launch, Slurm
from tests.launch import fake_slurm

pytest.importorskip("submitit")
TRAIN = (
    "run",
    "--json",
    "recipe=smoke",
    "only=pretrain",
    "pretrain.epochs=6",
    "pretrain.max_tokens=100000",
    "pretrain.save_every=1",
)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder with the facts about jobs. Jobs that are left over are ended."""
    fake_slurm.install(tmp_path / "bin")
    facts = tmp_path / "facts"
    facts.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(facts))
    yield facts
    for file in facts.glob("*.state"):
        fake_slurm.scancel(file.stem)


def test_training_runs_as_a_job_and_the_rest_here(slurm, toys, cli):
    done = cli(
        "run",
        "--json",
        "recipe=toy",
        "launch=slurm",
        "launch.slurm.partition=gpu",
        "launch.slurm.memory=1.5",
        "launch.slurm.minutes=90",
        "+launch.slurm.extra.qos=high",
        "only=tuned",
    )
    assert done.code == 0
    assert {step["state"] for step in done.json["steps"].values()} == {"new"}
    # toypages and toycorpus do not train.
    assert sorted(slurm.glob("*.state")) == [slurm / "100.state", slurm / "101.state"]
    script = (slurm / "100.script").read_text()
    for line in (
        "job-name=llmstages-toymodel",
        "partition=gpu",
        "mem=1536M",
        "time=90",
        "qos=high",
        "requeue",
        "signal=USR2@120",
        "nodes=1",
        "ntasks-per-node=1",
    ):
        assert f"#SBATCH --{line}\n" in script
    assert "Slurm job 100: pending" in done.err
    assert "noise on standard output" in done.err, "the job's output is shown"
    again = cli("run", "--json", "recipe=toy", "only=tuned")
    state = again.json["steps"]["tuned"]["state"]
    assert state == "reused", "how a step was started is not part of its identity"


def test_nodes_find_each_other_and_every_step_may_be_a_job(slurm, toys, cli):
    done = cli(
        "run",
        "--json",
        "recipe=toy",
        "launch=slurm",
        "launch.slurm.nodes=2",
        "launch.slurm.everything=true",
        "only=toymodel",
    )
    assert done.code == 0
    assert done.json["steps"]["toymodel"]["metrics"]["processes"] == 2
    assert len(list(slurm.glob("*.state"))) == 3
    assert "--nodes=1\n" in (slurm / "100.script").read_text()


def test_a_failing_job_tells_why_once(slurm, toys, cli):
    done = cli("run", "--json", "recipe=toy", "launch=slurm", TOY="stage")
    assert done.code == 1
    assert done.err.count("told to fail. Unset TOY") == 1
    assert "told to fail. Unset TOY" in done.json["error"]
    assert fake_slurm.read_fact("100", "state") in ("RUNNING", "COMPLETED")
    assert cli("run", "recipe=toy", "launch=slurm").code == 0


def test_a_refused_job_and_an_absent_slurm(slurm, toys, cli):
    done = cli("run", "--json", "recipe=toy", "launch=slurm", "launch.slurm.partition=closed")
    assert done.code == 1
    assert "Slurm refused the job of step 'toymodel'" in done.json["error"]
    assert "invalid partition specified: closed" in done.json["error"]
    done = cli("run", "recipe=toy", "launch=slurm", PATH=str(Path(sys.executable).parent))
    assert done.code == 2
    assert "launch=slurm needs sbatch, srun, squeue" in done.err
    assert "login node" in done.err


def begin(*words, **variables):
    """Start llmstages in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmstages", *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **variables},
    )


def wait_until(condition, process, seconds=90):
    """Wait for a condition while the process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def wait_for_tasks(process):
    wait_until(lambda: fake_slurm.read_fact("100", "tasks"), process)


def wait_for_restart(number, process):
    wait_until(lambda: f"RESTART_COUNT={number}" in environment_of("100"), process)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_wait_that_is_stopped_cancels_the_job(slurm, toys, cli, number, code):
    process = begin("run", "recipe=toy", "launch=slurm", TOY="hang")
    wait_for_tasks(process)
    time.sleep(0.5)
    process.send_signal(number)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == code
    assert "job 100 is asked to save and end" in out
    assert "stopped in step 'toymodel'" in out
    assert "Traceback" not in out
    assert fake_slurm.read_fact("100", "state") in ("CANCELLED", "FAILED")


def test_no_more_requeues_than_allowed(slurm, toys, cli):
    process = begin("run", "recipe=toy", "launch=slurm", "launch.slurm.requeues=1", TOY="hang")
    for restart in range(2):
        wait_for_restart(restart, process)
        time.sleep(1.5)
        fake_slurm.send("100", signal.SIGUSR2)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    most = "job 100 was started again 1 times, which is the most that launch.slurm.requeues allows"
    assert most in out
    assert "Slurm job 100 of step 'toymodel' ended as FAILED" in out
    assert "continues from the last checkpoint" in out


def test_a_job_left_by_a_killed_runner_is_ended_first(slurm, toys, cli):
    process = begin("run", "recipe=toy", "launch=slurm", TOY="hang")
    wait_for_tasks(process)
    process.kill()
    process.communicate()
    done = cli("run", "--json", "recipe=toy", "launch=slurm", "only=toymodel")
    assert done.code == 0
    assert "Slurm job 100 of an earlier run is asked to save and end" in done.err
    assert fake_slurm.read_fact("100", "state") in ("CANCELLED", "FAILED")
    assert fake_slurm.read_fact("101", "state") in ("RUNNING", "COMPLETED")


def test_what_cannot_be_is_refused_before_a_job_waits():
    with pytest.raises(StageError, match="one process drives one GPU, so set launch.processes=8"):
        build_config(Launch, {"backend": "slurm", "slurm": {"gpus": 8}}, "launch")
    with pytest.raises(StageError, match="a time limit that is longer than what saving may take"):
        build_config(Launch, {"backend": "slurm", "slurm": {"minutes": 2}}, "launch")
    with pytest.raises(StageError, match="launch.slurm.nodes is 0, but it must be >= 1"):
        build_config(Launch, {"backend": "slurm", "slurm": {"nodes": 0}}, "launch")


def test_processes_of_all_nodes_are_counted():
    launch = Launch(backend="slurm", processes=8, slurm=Slurm(nodes=2, gpus=8))
    assert launch.strategy == "ddp"
    assert launch.process_count(trains=True) == 16
    assert launch.process_count(trains=False) == 1
    assert "ACCELERATE_USE_CPU" not in launch.environment(trains=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A store with a tiny model, trained in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(
        [sys.executable, "-m", "llmstages", *TRAIN], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, json.loads(done.stdout.splitlines()[-1])["steps"]["pretrain"]["metrics"]


def record(folder):
    return json.loads((folder / "runs/smoke/pretrain/record.json").read_text())


def untrained(undisturbed, folder):
    """A copy of the store without the model."""
    shutil.copytree(
        undisturbed / "store", folder / "store", ignore=shutil.ignore_patterns("pretrain-*")
    )
    return folder


def updates(folder):
    """Updates of which there is a checkpoint."""
    checkpoints = folder.glob("store/.tmp/pretrain-*/work/checkpoints/update-*")
    return [int(path.name.split("-")[1]) for path in checkpoints]


def warn():
    fake_slurm.send("100", signal.SIGUSR2)


def preempt():
    fake_slurm.preempt("100")


@pytest.mark.parametrize(
    "disturbances",
    [(warn, preempt), pytest.param((warn, preempt) * 5, marks=pytest.mark.slow)],
    ids=lambda disturbances: f"{len(disturbances)} times",
)
def test_training_continues_after_warnings_and_preemptions_with_the_same_bits(
    slurm, undisturbed, tmp_path, monkeypatch, disturbances
):
    straight, metrics = undisturbed
    folder = untrained(straight, tmp_path / "here")
    monkeypatch.chdir(folder)
    process = begin(*TRAIN, "launch=slurm")
    last_update = 0

    def has_newer_checkpoint():
        return max(updates(folder), default=0) > last_update

    for restart, disturb in enumerate(disturbances, 1):
        wait_until(has_newer_checkpoint, process)
        disturb()
        wait_for_restart(restart, process)
        last_update = max(updates(folder))
    wait_until(has_newer_checkpoint, process)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 130, out
    assert out.count("asks to be started again") == disturbances.count(warn), out
    assert out.count("continues after update") == len(disturbances), out
    assert "pretrain: saved after update" in out
    assert "the same command continues from here, after update" in out

    command = [sys.executable, "-m", "llmstages", *TRAIN, "launch=slurm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pretrain resumes" in done.stderr
    assert "continues after update" in done.stderr
    end = json.loads(done.stdout.splitlines()[-1])["steps"]["pretrain"]
    assert end["state"] == "resumed"
    assert record(folder)["files"] == record(straight)["files"], "weights and log, to the bit"
    assert not updates(folder)
    assert metrics["updates"] > 40


def environment_of(job):
    """The environment of a job's first task, one variable per line."""
    with contextlib.suppress(OSError, IndexError):
        task = fake_slurm.read_fact(job, "tasks").split()[0]
        return Path(f"/proc/{task}/environ").read_text().replace("\0", "\n")
    return ""
