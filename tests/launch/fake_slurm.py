"""Slurm in one file, for tests: sbatch really runs the job in the background, with the states, signals and requeues of the real one.

    python fake_slurm.py sbatch|srun|squeue|sacct|scancel|scontrol ...     what install() puts on the PATH
    python fake_slurm.py preempt JOB                                       what a cluster with PreemptMode=REQUEUE does

Jobs live in the folder $FAKE_SLURM: one file a fact, as JOB.state.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
PENDING, KILL = 0.5, 10.0  # seconds a job waits, and between SIGTERM and SIGKILL


def install(folder: Path) -> None:
    """Put the commands into a folder, which is to lead the PATH."""
    folder.mkdir(parents=True)
    for name in COMMANDS:
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        (folder / name).chmod(0o755)


def fact(job: str, name: str) -> Path:
    return Path(os.environ["FAKE_SLURM"]) / f"{job}.{name}"


def told(job: str, name: str) -> str:
    return fact(job, name).read_text() if fact(job, name).exists() else ""


def tell(job: str, name: str, value: object) -> None:
    fact(job, name + ".new").write_text(str(value))
    fact(job, name + ".new").rename(fact(job, name))


def send(job: str, number: int) -> None:
    """A signal to the tasks of a job, not to what they have started: what slurmstepd does under cgroups."""
    for task in told(job, "tasks").split():
        try:
            os.kill(int(task), number)
        except ProcessLookupError:
            continue


def stop(job: str) -> None:
    """SIGTERM, and a while later SIGKILL; the job's own process does the second."""
    tell(job, "until", time.time() + KILL)
    send(job, signal.SIGTERM)


def sbatch(script: str) -> None:
    home = Path(os.environ["FAKE_SLURM"])
    if "partition=closed" in Path(script).read_text():
        sys.exit("sbatch: error: invalid partition specified: closed")
    job = str(100 + len(list(home.glob("*.state"))))
    tell(job, "state", "PENDING")
    tell(job, "script", Path(script).read_text())
    subprocess.Popen(
        [sys.executable, __file__, "live", job],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=fact(job, "noise").open("w"),
    )
    print(f"Submitted batch job {job}")


def live(job: str) -> None:
    """The life of a job: it waits, runs, and begins again as often as it is requeued."""
    nodes = (re.search(r"--nodes=(\d+)", told(job, "script")) or [None, "1"])[1]
    for restart in range(1000):
        tell(job, "state", "PENDING")
        time.sleep(PENDING)
        if told(job, "cancelled"):
            break
        for name in ("until", "tasks", "requeue"):
            fact(job, name).unlink(missing_ok=True)
        tell(job, "state", "RUNNING")
        variables = {
            "SLURM_JOB_ID": job,
            "SLURM_NTASKS": nodes,
            "SLURM_JOB_NUM_NODES": nodes,
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_RESTART_COUNT": str(restart),
        }
        batch = subprocess.Popen(
            ["bash", str(fact(job, "script"))], env={**os.environ, **variables}
        )
        while batch.poll() is None:
            if told(job, "until") and time.time() > float(told(job, "until")):
                send(job, signal.SIGKILL)
            time.sleep(0.1)
        if not told(job, "requeue"):
            break
    tell(
        job,
        "state",
        "CANCELLED" if told(job, "cancelled") else "FAILED" if batch.returncode else "COMPLETED",
    )


def srun(*words: str) -> None:
    job, log = os.environ["SLURM_JOB_ID"], ""
    rest = list(words)
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        log = rest.pop(0) if flag == "--output" else log
    tasks = []
    for number in range(int(os.environ["SLURM_NTASKS"])):
        out = open(log.replace("%j", job).replace("%t", str(number)), "a")
        tasks.append(
            subprocess.Popen(
                rest,
                stdout=out,
                stderr=out,
                env={
                    **os.environ,
                    "SLURM_PROCID": str(number),
                    "SLURM_NODEID": str(number),
                    "SLURM_LOCALID": "0",
                },
            )
        )
    tell(job, "tasks", " ".join(str(task.pid) for task in tasks))
    sys.exit(max(abs(task.wait()) for task in tasks))


def squeue(*words: str) -> None:
    state = told(words[words.index("--jobs") + 1], "state")
    if state not in ("PENDING", "RUNNING"):
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(state)


def sacct(*words: str) -> None:
    print(told(words[words.index("--jobs") + 1], "state"))


def scancel(*words: str) -> None:
    job = words[-1]
    if words[0].startswith("--signal="):
        send(job, getattr(signal, "SIG" + words[0].split("=")[1]))
    elif told(job, "state") in ("PENDING", "RUNNING"):
        tell(job, "cancelled", 1)
        stop(job)


def scontrol(what: str, job: str) -> None:
    assert what == "requeue"
    tell(job, "requeue", 1)
    stop(job)


def preempt(job: str) -> None:
    scontrol("requeue", job)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
