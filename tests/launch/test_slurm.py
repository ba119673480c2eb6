"""Steps as Slurm jobs, with a Slurm that is one Python file: to the end, preempted, warned, failed, cancelled, refused."""

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
    """The folder in which the facts about jobs are; jobs that are left over are ended."""
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
    assert done.code == 0 and {s["state"] for s in done.json["steps"].values()} == {"new"}
    assert sorted(slurm.glob("*.state")) == [slurm / "100.state", slurm / "101.state"], (
        "toypages and toycorpus do not train"
    )
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
    assert "Slurm job 100: pending" in done.err and "noise on standard output" in done.err, (
        "the job's output is shown"
    )
    assert (
        cli("run", "--json", "recipe=toy", "only=tuned").json["steps"]["tuned"]["state"] == "reused"
    ), "how a step was started is no part of it"


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
    assert done.code == 0 and done.json["steps"]["toymodel"]["metrics"]["processes"] == 2
    assert (
        len(list(slurm.glob("*.state"))) == 3
        and "--nodes=1\n" in (slurm / "100.script").read_text()
    )


def test_a_failing_job_tells_why_once(slurm, toys, cli):
    done = cli("run", "--json", "recipe=toy", "launch=slurm", TOY="stage")
    assert (
        done.code == 1
        and done.err.count("told to fail. Unset TOY") == 1
        and "told to fail. Unset TOY" in done.json["error"]
    )
    assert (
        fake_slurm.told("100", "state") in ("RUNNING", "COMPLETED")
        and cli("run", "recipe=toy", "launch=slurm").code == 0
    )


def test_a_refused_job_and_an_absent_slurm(slurm, toys, cli):
    done = cli("run", "--json", "recipe=toy", "launch=slurm", "launch.slurm.partition=closed")
    assert (
        done.code == 1
        and "Slurm refused the job of step 'toymodel'" in done.json["error"]
        and "invalid partition specified: closed" in done.json["error"]
    )
    done = cli("run", "recipe=toy", "launch=slurm", PATH=str(Path(sys.executable).parent))
    assert (
        done.code == 2
        and "launch=slurm needs sbatch, srun, squeue" in done.err
        and "login node" in done.err
    )


def begin(*words, **more):
    """llmstages in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmstages", *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **more},
    )


def until(met, process, seconds=90):
    """Wait for something while the process runs."""
    end = time.monotonic() + seconds
    while not met():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_wait_that_is_stopped_cancels_the_job(slurm, toys, cli, number, code):
    process = begin("run", "recipe=toy", "launch=slurm", TOY="hang")
    until(lambda: fake_slurm.told("100", "tasks"), process)
    time.sleep(0.5)
    process.send_signal(number)
    out = process.communicate(timeout=60)[0]
    assert (
        process.returncode == code
        and "job 100 is told to save and end" in out
        and "stopped in step 'toymodel'" in out
        and "Traceback" not in out
    )
    assert fake_slurm.told("100", "state") in ("CANCELLED", "FAILED")


def test_no_more_requeues_than_allowed(slurm, toys, cli):
    process = begin("run", "recipe=toy", "launch=slurm", "launch.slurm.requeues=1", TOY="hang")
    for restart in range(2):
        until(lambda: f"RESTART_COUNT={restart}" in environment_of("100"), process)
        time.sleep(1.5)
        fake_slurm.send("100", signal.SIGUSR2)
    out = process.communicate(timeout=60)[0]
    assert (
        process.returncode == 1
        and "job 100 was started again 1 times, which is all it may (launch.slurm.requeues)" in out
    )
    assert (
        "Slurm job 100 of step 'toymodel' ended as FAILED" in out
        and "goes on from the last checkpoint" in out
    )


def test_a_job_left_by_a_killed_runner_is_ended_first(slurm, toys, cli):
    process = begin("run", "recipe=toy", "launch=slurm", TOY="hang")
    until(lambda: fake_slurm.told("100", "tasks"), process)
    process.kill()
    process.communicate()
    done = cli("run", "--json", "recipe=toy", "launch=slurm", "only=toymodel")
    assert done.code == 0 and "Slurm job 100 of an earlier run is told to save and end" in done.err
    assert fake_slurm.told("100", "state") in ("CANCELLED", "FAILED") and fake_slurm.told(
        "101", "state"
    ) in ("RUNNING", "COMPLETED")


def test_what_cannot_be_is_refused_before_a_job_waits():
    with pytest.raises(StageError, match="one process drives one GPU, so set launch.processes=8"):
        build_config(Launch, {"backend": "slurm", "slurm": {"gpus": 8}}, "launch")
    with pytest.raises(StageError, match="a time limit that is longer than what saving may take"):
        build_config(Launch, {"backend": "slurm", "slurm": {"minutes": 2}}, "launch")
    launch = Launch(backend="slurm", processes=8, slurm=Slurm(nodes=2, gpus=8))
    assert (
        launch.kind == "ddp"
        and launch.spread(True) == 16
        and launch.spread(False) == 1
        and "ACCELERATE_USE_CPU" not in launch.environment(True)
    )


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
    return [
        int(path.name.split("-")[1])
        for path in folder.glob("store/.tmp/pretrain-*/work/checkpoints/update-*")
    ]


def disturb(folder, process, after, how):
    """Wait for a checkpoint after an update and let something happen to the job."""
    until(lambda: max(updates(folder), default=0) > after, process)
    how()


WARN = ("warned", lambda: fake_slurm.send("100", signal.SIGUSR2))
PREEMPT = ("preempted", lambda: fake_slurm.preempt("100"))


@pytest.mark.parametrize(
    "blows",
    [(WARN, PREEMPT), pytest.param((WARN, PREEMPT) * 5, marks=pytest.mark.slow)],
    ids=lambda blows: f"{len(blows)} times",
)
def test_training_goes_on_after_warnings_and_preemptions_with_the_same_bits(
    slurm, undisturbed, tmp_path, monkeypatch, blows
):
    straight, metrics = undisturbed
    folder = untrained(straight, tmp_path / "here")
    monkeypatch.chdir(folder)
    process, last = begin(*TRAIN, "launch=slurm"), 0
    for restart, (_, how) in enumerate(blows):
        disturb(folder, process, last, how)
        until(lambda: f"RESTART_COUNT={restart + 1}" in environment_of("100"), process)
        last = max(updates(folder))
    disturb(folder, process, last, lambda: process.send_signal(signal.SIGINT))
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 130, out
    assert out.count("asks to be started again") == sum(name == "warned" for name, _ in blows), out
    assert out.count("goes on after update") == len(blows), out
    assert (
        "pretrain: saved after update" in out
        and "the same command goes on from here, after update" in out
    )
    done = subprocess.run(
        [sys.executable, "-m", "llmstages", *TRAIN, "launch=slurm"], capture_output=True, text=True
    )
    assert (
        done.returncode == 0
        and "pretrain resumes" in done.stderr
        and "goes on after update" in done.stderr
    ), done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])["steps"]["pretrain"]
    assert told["state"] == "resumed" and record(folder)["files"] == record(straight)["files"], (
        "weights and log, to the bit"
    )
    assert max(updates(folder), default=0) == 0 and metrics["updates"] > 40


def environment_of(job):
    """The environment of a job's first task, one variable a line."""
    with contextlib.suppress(OSError, IndexError):
        return (
            Path(f"/proc/{fake_slurm.told(job, 'tasks').split()[0]}/environ")
            .read_text()
            .replace("\0", "\n")
        )
    return ""
