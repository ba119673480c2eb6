"""A step as a Slurm job, submitted with submitit: it saves and is requeued before its time limit and when it is preempted.

The runner stays: it waits, shows the job's output, and turns Ctrl-C into a signal that lets training save. On each node the job
starts torchrun on the frozen step, as the runner would here. What a signal means inside a job:

    SIGUSR2 (USR1)   Slurm's warning before a time limit or a preemption: save, then ask Slurm to start the job again
    SIGTERM          save and leave. Sent by scancel, and by a preemption after which Slurm requeues by itself (--requeue)

Left out: job arrays, and going on without the runner: a job outlives it, but only a runner makes an artifact of the result.
"""

from __future__ import annotations

import dataclasses as dc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.core.exit_codes import REQUEUE
from llmstages.launch import subprocess_runner
from llmstages.launch.config import Launch

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
LIVE = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "NO ANSWER",
)
OTHERS = (
    "PMI_",
    "PMIX_",
    "OMPI_",
    "MV2_",
)  # variables of MPI launchers, which accelerate takes for the number of processes
POLL, ASK, GONE = (
    0.5,
    5.0,
    3,
)  # seconds between looks at the files, and at the queue; looks at the queue in which a job that is over is missing


def check() -> None:
    """StageError where jobs cannot be submitted from here."""
    absent = [name for name in COMMANDS if shutil.which(name) is None]
    if absent:
        raise StageError(
            f"launch=slurm needs {', '.join(absent)}, not found on the PATH: start it on a login node of the cluster, or choose another "
            "launcher: launch=ddp"
        )
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise StageError(
            "launch=slurm needs submitit, which is not installed: pip install 'llmstages[slurm]'"
        ) from error


@dc.dataclass(frozen=True)
class Job:
    """What each node of a job runs. Where a signal warned it, the first node asks Slurm to start the job again."""

    folder: Path
    launch: Launch
    trains: bool

    def __call__(self) -> int:
        received: list[int] = []
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, _: received.append(number))
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        if first:
            subprocess_runner.forget(self.folder)
            shutil.rmtree(self.folder / "out")  # of an attempt before a requeue
            (self.folder / "out").mkdir()
        code = self._wait(received)
        if (
            not first
            or not received
            or (self.folder / "error.json").exists()
            or (self.folder / "metrics.json").exists()
        ):
            return code
        if received[0] != signal.SIGTERM:
            self._requeue()
        raise SystemExit(
            REQUEUE
        )  # which leaves no result: the job goes on, or its state says that it is over

    def _wait(self, received: list[int]) -> int:
        """Run the worker, and pass on each signal that arrives."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(OTHERS)
        } | self.launch.environment(self.trains)
        # Slurm may signal every process of a job; torchrun would die of the warnings
        command = [
            "sh",
            "-c",
            "trap '' USR1 USR2; exec \"$@\"",
            "sh",
            *self.launch.command(self.folder, self.trains, _meeting(self.launch.slurm.nodes)),
        ]
        worker = subprocess.Popen(command, env=environment)
        passed = 0
        while worker.poll() is None:
            if len(received) > passed:
                passed = len(received)
                subprocess_runner.tell(worker)
            time.sleep(0.1)
        return worker.returncode

    def _requeue(self) -> None:
        done, number = int(os.environ.get("SLURM_RESTART_COUNT", "0")), os.environ["SLURM_JOB_ID"]
        if done >= self.launch.slurm.requeues:
            print(
                f"job {number} was started again {done} times, which is all it may (launch.slurm.requeues)",
                file=sys.stderr,
                flush=True,
            )
            return
        print(
            f"job {number} asks to be started again ({done + 1} of {self.launch.slurm.requeues})",
            file=sys.stderr,
            flush=True,
        )
        subprocess.run(["scontrol", "requeue", number], check=True)


def _meeting(nodes: int) -> list[str]:
    """How torchrun finds the other nodes: at the first of them, on a port that belongs to the job."""
    if nodes == 1:
        return ["--standalone"]
    from submitit import JobEnvironment

    job = JobEnvironment()
    return [
        f"--nnodes={nodes}",
        "--rdzv_backend=c10d",
        f"--rdzv_id={job.job_id}",
        f"--rdzv_endpoint={job.hostnames[0]}:{20000 + int(job.job_id) % 20000}",
    ]


def run(folder: Path, step: str, launch: Launch, trains: bool, console: Console) -> dict[str, Any]:
    """Run the worker on a frozen step as a job; returns its metrics. KeyboardInterrupt lets training save first."""
    note = folder / "slurm-job"  # its number: a runner that was killed leaves its job behind
    if note.exists() and state(note.read_text()) in LIVE:
        console.say(
            f"  {step}: Slurm job {note.read_text()} of an earlier run is told to save and end"
        )
        cancel(note.read_text())
    job = _submit(folder, step, launch, trains)
    note.write_text(job.job_id)
    end = _follow(job, console)
    metrics = subprocess_runner.told(folder)
    if metrics is None:
        raise StageError(
            f"Slurm job {job.job_id} of step {step!r} ended as {end} and left no message; its output is in {job.paths.stdout}. The same command "
            "goes on from the last checkpoint. If it ran out of time or memory: launch.slurm.minutes, launch.slurm.memory"
        )
    return metrics


def _submit(folder: Path, step: str, launch: Launch, trains: bool) -> Any:
    """Hand the job to sbatch; StageError with Slurm's own words if it is refused."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    asked = launch.slurm
    wanted = {
        "job_name": f"llmstages-{step}",
        "partition": asked.partition,
        "account": asked.account,
        "nodes": asked.nodes if trains else 1,
        "ntasks_per_node": 1,
        "gpus_per_node": asked.gpus,
        "cpus_per_task": asked.cores,
        "mem": asked.memory and f"{round(1024 * asked.memory)}M",
        "time": asked.minutes,
    }
    executor = SlurmExecutor(folder / "slurm")
    executor.update_parameters(
        **{name: value for name, value in wanted.items() if value},
        signal_delay_s=asked.save_seconds,
        stderr_to_stdout=True,
        additional_parameters={"requeue": True, **asked.extra},
        srun_args=[f"--cpus-per-task={asked.cores}"] if asked.cores else None,
    )  # which srun no longer takes from sbatch
    try:
        job = executor.submit(Job(folder, launch, trains))
    except (FailedJobError, FailedSubmissionError) as error:
        raise StageError(
            f"Slurm refused the job of step {step!r}: {str(error).strip()}. Change launch.slurm.partition, account, minutes or what else it names"
        ) from error
    return job.task(0)


def _follow(job: Any, console: Console) -> str:
    """Wait until a job is over, showing its state and its output; returns its last state. Ctrl-C lets it save."""
    shown, read, missing, asked, now = "", 0, 0, 0.0, ""
    try:
        with console.progress(f"Slurm job {job.job_id}") as advance:
            while not job.paths.result_pickle.exists() and missing < GONE:
                if time.monotonic() - asked > ASK:
                    asked, now = time.monotonic(), state(job.job_id)
                    missing = 0 if now in LIVE else missing + 1
                    advance(ASK, now.lower())
                if now != shown:
                    console.say(f"  Slurm job {job.job_id}: {now.lower()}")
                    shown = now
                read = _show(job.paths.stdout, read)
                time.sleep(POLL)
    except KeyboardInterrupt:
        console.say(
            f"  Slurm job {job.job_id} is told to save and end; a second Ctrl-C does not wait for it"
        )
        cancel(job.job_id)
        raise
    finally:
        _show(job.paths.stdout, read)
    return now


def _show(log: Path, read: int) -> int:
    """Pass on what a job has printed since, as a worker here would; returns how much of it is read."""
    if not log.exists():
        return read
    with log.open("rb") as file:
        file.seek(read)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    lines = whole.decode(errors="replace").splitlines(keepends=True)
    sys.stderr.write("".join(line for line in lines if not line.startswith("submitit ")))
    sys.stderr.flush()
    return read + len(whole)


def state(number: str) -> str:
    """State of a job: of the queue while it is there, else of the accounts."""
    queue = subprocess.run(
        ["squeue", "--noheader", "--jobs", number, "--format=%T"], capture_output=True, text=True
    )
    if found := queue.stdout.split():
        return found[0]
    if (
        queue.returncode and "Invalid job id" not in queue.stderr
    ):  # Slurm does not answer, which says nothing about the job
        return "NO ANSWER"
    told = subprocess.run(
        ["sacct", "--noheader", "--allocations", "--jobs", number, "--format=State"],
        capture_output=True,
        text=True,
    )
    return (told.stdout.split() or ["UNKNOWN"])[0]


def cancel(number: str) -> None:
    """Let a job save and end; return once it is over."""
    try:
        if state(number) == "RUNNING":
            subprocess.run(["scancel", "--signal=TERM", number], capture_output=True)
            until = time.monotonic() + subprocess_runner.SAVING
            while state(number) in LIVE and time.monotonic() < until:
                time.sleep(POLL)
    finally:
        subprocess.run(["scancel", number], capture_output=True)
    while state(number) in LIVE:
        time.sleep(POLL)
