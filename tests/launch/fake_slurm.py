"""Slurm in one file, for tests.

sbatch really runs a job in the background, with the states, signals and requeues of the real one.

    python fake_slurm.py sbatch|srun|squeue|sacct|scancel|scontrol ...  (install() links to these)
    python fake_slurm.py preempt JOB        what a cluster with PreemptMode=REQUEUE does

Jobs live in the folder $FAKE_SLURM, one fact per file, such as JOB.state.
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
LIVE = ("PENDING", "RUNNING")
PENDING_SECONDS = 0.5
KILL_SECONDS = 10.0  # between SIGTERM and SIGKILL
MAX_RESTARTS = 1000


def install(folder: Path) -> None:
    """Put the commands into a folder, which is to lead the PATH."""
    folder.mkdir(parents=True)
    for name in COMMANDS:
        script = f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)


def fact_file(job: str, name: str) -> Path:
    return Path(os.environ["FAKE_SLURM"]) / f"{job}.{name}"


def read_fact(job: str, name: str) -> str:
    file = fact_file(job, name)
    return file.read_text() if file.exists() else ""


def write_fact(job: str, name: str, value: object) -> None:
    new = fact_file(job, name + ".new")
    new.write_text(str(value))
    new.rename(fact_file(job, name))


def send(job: str, number: int) -> None:
    """A signal to the tasks of a job, not to their children: as slurmstepd does under cgroups."""
    for task in read_fact(job, "tasks").split():
        try:
            os.kill(int(task), number)
        except ProcessLookupError:
            continue


def stop(job: str) -> None:
    """SIGTERM, and a while later SIGKILL, which the process of the job sends."""
    write_fact(job, "until", time.time() + KILL_SECONDS)
    send(job, signal.SIGTERM)


def sbatch(script: str) -> None:
    home = Path(os.environ["FAKE_SLURM"])
    text = Path(script).read_text()
    if "partition=closed" in text:
        sys.exit("sbatch: error: invalid partition specified: closed")
    job = str(100 + len(list(home.glob("*.state"))))
    write_fact(job, "state", "PENDING")
    write_fact(job, "script", text)
    subprocess.Popen(
        [sys.executable, __file__, "live", job],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=fact_file(job, "noise").open("w"),
    )
    print(f"Submitted batch job {job}")


def live(job: str) -> None:
    """The life of a job: it waits, runs, and begins again as often as it is requeued."""
    code = 0
    for restart in range(MAX_RESTARTS):
        write_fact(job, "state", "PENDING")
        time.sleep(PENDING_SECONDS)
        if read_fact(job, "cancelled"):
            break
        code = run_once(job, restart)
        if not read_fact(job, "requeue"):
            break
    state = "FAILED" if code else "COMPLETED"
    if read_fact(job, "cancelled"):
        state = "CANCELLED"
    write_fact(job, "state", state)


def run_once(job: str, restart: int) -> int:
    """One attempt of a job; returns the exit code of its script."""
    nodes = re.search(r"--nodes=(\d+)", read_fact(job, "script"))
    node_count = nodes[1] if nodes else "1"
    for name in ("until", "tasks", "requeue"):
        fact_file(job, name).unlink(missing_ok=True)
    write_fact(job, "state", "RUNNING")
    variables = {
        "SLURM_JOB_ID": job,
        "SLURM_NTASKS": node_count,
        "SLURM_JOB_NUM_NODES": node_count,
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_RESTART_COUNT": str(restart),
    }
    script = str(fact_file(job, "script"))
    batch = subprocess.Popen(["bash", script], env={**os.environ, **variables})
    while batch.poll() is None:
        until = read_fact(job, "until")
        if until and time.time() > float(until):
            send(job, signal.SIGKILL)
        time.sleep(0.1)
    return batch.returncode


def srun(*words: str) -> None:
    job, log = os.environ["SLURM_JOB_ID"], ""
    rest = list(words)
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        if flag == "--output":
            log = rest.pop(0)
    tasks = []
    for number in range(int(os.environ["SLURM_NTASKS"])):
        out = Path(log.replace("%j", job).replace("%t", str(number))).open("a")
        variables = {
            "SLURM_PROCID": str(number),
            "SLURM_NODEID": str(number),
            "SLURM_LOCALID": "0",
        }
        task = subprocess.Popen(rest, stdout=out, stderr=out, env={**os.environ, **variables})
        tasks.append(task)
    write_fact(job, "tasks", " ".join(str(task.pid) for task in tasks))
    sys.exit(max(abs(task.wait()) for task in tasks))


def squeue(*words: str) -> None:
    state = read_fact(job_of(words), "state")
    if state not in LIVE:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(state)


def sacct(*words: str) -> None:
    print(read_fact(job_of(words), "state"))


def job_of(words: tuple[str, ...]) -> str:
    return words[words.index("--jobs") + 1]


def scancel(*words: str) -> None:
    job = words[-1]
    if words[0].startswith("--signal="):
        send(job, getattr(signal, "SIG" + words[0].split("=")[1]))
    elif read_fact(job, "state") in LIVE:
        write_fact(job, "cancelled", 1)
        stop(job)


def scontrol(what: str, job: str) -> None:
    assert what == "requeue"
    write_fact(job, "requeue", 1)
    stop(job)


def preempt(job: str) -> None:
    scontrol("requeue", job)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
