"""A step as a Slurm job, submitted with submitit.

The job saves and is requeued before its time limit and when it is preempted. The runner stays: it
waits, shows the job's output, and turns Ctrl-C into a signal that lets training save. On each node
the job starts torchrun on the frozen step, as the runner would here. What a signal means in a job:

    SIGUSR2 (USR1)   Slurm's warning before a time limit or a preemption: save, then ask Slurm to
                     start the job again
    SIGTERM          save and leave. scancel sends it, and a preemption after which Slurm requeues
                     by itself (--requeue)

Left out on purpose: job arrays, and finishing without the runner. A job outlives its runner, but
only a runner makes an artifact of the result.
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
NO_ANSWER = "NO ANSWER"  # our own state, where Slurm cannot be asked
LIVE_STATES = (
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
    NO_ANSWER,
)
# Variables of MPI launchers, which accelerate takes for the number of processes
MPI_PREFIXES = ("PMI_", "PMIX_", "OMPI_", "MV2_")
# Slurm may signal every process of a job, and its warnings would end torchrun.
IGNORE_WARNINGS = ("sh", "-c", "trap '' USR1 USR2; exec \"$@\"", "sh")
POLL_SECONDS = 0.5  # between looks at the files of a job
QUEUE_SECONDS = 5.0  # between looks at the queue
MOST_MISSES = 3  # looks at the queue without the job after which it counts as ended


def check_available() -> None:
    """Raise StageError where jobs cannot be submitted from this machine."""
    absent = [name for name in COMMANDS if shutil.which(name) is None]
    if absent:
        raise StageError(
            f"launch=slurm needs {', '.join(absent)}, not found on the PATH: start it on a login "
            "node of the cluster, or choose another launcher: launch=ddp"
        )
    try:
        import submitit  # noqa: F401  (only whether it is installed)
    except ImportError as error:
        raise StageError(
            "launch=slurm needs submitit, which is not installed: pip install 'llmstages[slurm]'"
        ) from error


@dc.dataclass(frozen=True)
class Job:
    """What each node of a job runs.

    After a warning signal, the first node asks Slurm to start the job again.
    """

    folder: Path
    launch: Launch
    trains: bool

    def __call__(self) -> int:
        received: list[int] = []

        def note(number: int, _frame: Any) -> None:
            received.append(number)

        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, note)
        is_first_node = os.environ.get("SLURM_PROCID", "0") == "0"
        if is_first_node:
            self._clear()
        code = self._run_worker(received)
        if not is_first_node or not received or self._has_result():
            return code
        if received[0] != signal.SIGTERM:
            self._requeue()
        # Without a result of this call, the runner waits: either the job starts again, or its
        # state says that it has ended.
        raise SystemExit(REQUEUE)

    def _clear(self) -> None:
        """Remove what an attempt before a requeue left."""
        subprocess_runner.clear_result(self.folder)
        out = self.folder / "out"
        shutil.rmtree(out)
        out.mkdir()

    def _has_result(self) -> bool:
        return any((self.folder / name).exists() for name in ("error.json", "metrics.json"))

    def _run_worker(self, received: list[int]) -> int:
        """Run the worker, and ask it to save at each signal that arrives."""
        environment = self.launch.environment(self.trains)
        for name, value in os.environ.items():
            if name not in environment and not name.startswith(MPI_PREFIXES):
                environment[name] = value
        rendezvous = _rendezvous(self.launch.slurm.nodes)
        command = self.launch.command(self.folder, self.trains, rendezvous)
        worker = subprocess.Popen([*IGNORE_WARNINGS, *command], env=environment)
        passed_on = 0
        while worker.poll() is None:
            if len(received) > passed_on:
                passed_on = len(received)
                subprocess_runner.ask_to_save(worker)
            time.sleep(0.1)
        return worker.returncode

    def _requeue(self) -> None:
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        number = os.environ["SLURM_JOB_ID"]
        most = self.launch.slurm.requeues
        if restarts >= most:
            _print(
                f"job {number} was started again {restarts} times, which is the most that "
                "launch.slurm.requeues allows"
            )
            return
        _print(f"job {number} asks to be started again ({restarts + 1} of {most})")
        subprocess.run(["scontrol", "requeue", number], check=True)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rendezvous(nodes: int) -> list[str]:
    """How torchrun finds the other nodes: at the first one, on a port that belongs to the job."""
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
    """Run the worker on a frozen step as a job and return its metrics.

    On KeyboardInterrupt training saves first.

    Raises:
        StageError: Slurm refuses the job, the step failed, or the job ended without a message.
    """
    job_file = folder / "slurm-job"  # its number: a runner that was killed leaves its job behind
    if job_file.exists():
        earlier = job_file.read_text()
        if job_state(earlier) in LIVE_STATES:
            console.say(f"  {step}: Slurm job {earlier} of an earlier run is asked to save and end")
            cancel(earlier)
    job = _submit(folder, step, launch, trains)
    job_file.write_text(job.job_id)
    state = _follow(job, console)
    metrics = subprocess_runner.read_result(folder)
    if metrics is None:
        raise StageError(
            f"Slurm job {job.job_id} of step {step!r} ended as {state} and left no message; its "
            f"output is in {job.paths.stdout}. The same command continues from the last "
            "checkpoint. If it ran out of time or memory: launch.slurm.minutes, launch.slurm.memory"
        )
    return metrics


def _submit(folder: Path, step: str, launch: Launch, trains: bool) -> Any:
    """Hand the job to sbatch. If Slurm refuses it, the StageError repeats Slurm's own words."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    request = launch.slurm
    parameters = {
        "job_name": f"llmstages-{step}",
        "partition": request.partition,
        "account": request.account,
        "nodes": request.nodes if trains else 1,
        "ntasks_per_node": 1,
        "gpus_per_node": request.gpus,
        "cpus_per_task": request.cores,
        "mem": f"{round(1024 * request.memory)}M" if request.memory else "",
        "time": request.minutes,
    }
    # srun no longer takes the number of cores from sbatch.
    srun_args = [f"--cpus-per-task={request.cores}"] if request.cores else None
    executor = SlurmExecutor(folder / "slurm")
    executor.update_parameters(
        **{name: value for name, value in parameters.items() if value},
        signal_delay_s=request.save_seconds,
        stderr_to_stdout=True,
        additional_parameters={"requeue": True, **request.extra},
        srun_args=srun_args,
    )
    try:
        job = executor.submit(Job(folder, launch, trains))
    except (FailedJobError, FailedSubmissionError) as error:
        raise StageError(
            f"Slurm refused the job of step {step!r}: {str(error).strip()}. "
            "Change launch.slurm.partition, account, minutes or what else it names"
        ) from error
    return job.task(0)


def _follow(job: Any, console: Console) -> str:
    """Wait until a job has ended, and return its last state.

    Its state and its output are shown meanwhile. On Ctrl-C the job saves and ends.
    """
    shown_state = state = ""
    shown_bytes = misses = 0
    asked_at = 0.0
    try:
        with console.progress(f"Slurm job {job.job_id}") as advance:
            while not job.paths.result_pickle.exists() and misses < MOST_MISSES:
                if time.monotonic() - asked_at > QUEUE_SECONDS:
                    asked_at = time.monotonic()
                    state = job_state(job.job_id)
                    misses = 0 if state in LIVE_STATES else misses + 1
                    advance(QUEUE_SECONDS, state.lower())
                if state != shown_state:
                    console.say(f"  Slurm job {job.job_id}: {state.lower()}")
                    shown_state = state
                shown_bytes = _show(job.paths.stdout, shown_bytes)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        console.say(
            f"  Slurm job {job.job_id} is asked to save and end; "
            "a second Ctrl-C does not wait for it"
        )
        cancel(job.job_id)
        raise
    finally:
        _show(job.paths.stdout, shown_bytes)
    return state


def _show(log: Path, shown_bytes: int) -> int:
    """Print the whole lines that a job has written since, and return how much is shown then."""
    if not log.exists():
        return shown_bytes
    with log.open("rb") as file:
        file.seek(shown_bytes)
        content = file.read()
    whole_lines = content[: content.rfind(b"\n") + 1]
    for line in whole_lines.decode(errors="replace").splitlines(keepends=True):
        if not line.startswith("submitit "):
            sys.stderr.write(line)
    sys.stderr.flush()
    return shown_bytes + len(whole_lines)


def job_state(number: str) -> str:
    """The state of a job: from the queue while it is there, afterwards from the accounts."""
    queue = _ask("squeue", "--noheader", "--jobs", number, "--format=%T")
    states = queue.stdout.split()
    if states:
        return states[0]
    if queue.returncode and "Invalid job id" not in queue.stderr:
        return NO_ANSWER  # Slurm does not answer, which says nothing about the job
    accounts = _ask("sacct", "--noheader", "--allocations", "--jobs", number, "--format=State")
    states = accounts.stdout.split()
    return states[0] if states else "UNKNOWN"


def cancel(number: str) -> None:
    """Let a job save and end; return once it has ended."""
    try:
        if job_state(number) == "RUNNING":
            _ask("scancel", "--signal=TERM", number)
            deadline = time.monotonic() + subprocess_runner.SAVE_SECONDS
            while job_state(number) in LIVE_STATES and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
    finally:
        _ask("scancel", number)
    while job_state(number) in LIVE_STATES:
        time.sleep(POLL_SECONDS)


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm and collect what it prints."""
    return subprocess.run(command, capture_output=True, text=True)
