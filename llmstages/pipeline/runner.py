"""Walk a plan: reuse what is there, make the rest, stop at the first failure. Never imports anything heavy itself."""

from __future__ import annotations

import dataclasses as dc
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from llmstages.core import registry
from llmstages.core.config import to_plain
from llmstages.core.console import Console, format_number, format_seconds
from llmstages.core.errors import StageError
from llmstages.core.exit_codes import REQUEUE
from llmstages.core.stage import Artifact
from llmstages.launch import subprocess_runner
from llmstages.launch.config import Launch, foreign_launcher
from llmstages.pipeline import sources, worker
from llmstages.pipeline.plan import Planned, Source, Step, lines
from llmstages.pipeline.store import Store

LIBRARIES = (
    "llmstages",
    "torch",
    "transformers",
    "trl",
    "datasets",
    "tokenizers",
    "accelerate",
    "peft",
    "deepspeed",
)


@dc.dataclass
class Result:
    """What became of one step."""

    state: str
    why: str = ""
    seconds: float = 0.0
    path: str = ""
    metrics: Mapping[str, Any] = dc.field(default_factory=dict)


@dc.dataclass
class Outcome:
    """What became of a run: results in order, and the exit code (0 done, 1 failed, 75 saved on a signal, 130 stopped)."""

    results: dict[str, Result]
    artifacts: dict[str, Artifact]
    error: str = ""
    code: int = 0


@dc.dataclass(frozen=True)
class Run:
    """Where a run happens: its store, its links, how steps start, who is told."""

    store: Store
    name: str = ""
    runs: str = ""
    launch: Launch = Launch()
    console: Console = Console(quiet=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: stop like Ctrl-C, with the exit code that asks to be started again."""


def execute(planned: Sequence[Planned], run: Run) -> Outcome:
    """Make every step of the plan that is not in the store. Finished steps are kept whatever happens."""
    if other := foreign_launcher():
        raise StageError(
            f"llmstages was started by another launcher ({other}), which makes copies of the run or leaves processes out. Start it plainly; it "
            "starts its processes itself: launch=ddp launch.processes=2 (or zero2, zero3, fsdp, slurm)"
        )
    for line in lines(planned):
        run.console.say(line)
    if any(run.launch.as_job(_trains(plan.step)) for plan in planned if plan.state != "reused"):
        from llmstages.launch import slurm

        slurm.check()
    with _environment(run.launch.environment() if run.launch.backend == "inline" else {}):
        return _walk(planned, run)


def _walk(planned: Sequence[Planned], run: Run) -> Outcome:
    outcome = Outcome({}, {})
    for plan in planned:
        name, start = plan.step.name, time.perf_counter()
        try:
            with _stoppable():
                state, record = _one(plan, run, outcome.artifacts)
        except (KeyboardInterrupt, SystemExit) as stop:
            outcome.error, outcome.code = _left(
                name, stop, subprocess_runner.stopped(run.store.temporary(plan.key))
            )
        except Exception as error:  # the boundary: whatever a stage raises ends as one message
            if "LLMSTAGES_DEBUG" in os.environ:
                traceback.print_exc()
            outcome.error, outcome.code = worker.message(name, error), 1
        if outcome.code:
            outcome.results[name] = Result("failed", plan.why, time.perf_counter() - start)
            return outcome
        folder = run.store.folder(plan.key)
        outcome.artifacts[name] = Artifact(name, plan.step.kind, folder.resolve(), plan.fingerprint)
        link = run.store.link(run.runs, run.name, name, plan.key) if run.runs else folder
        took = time.perf_counter() - start if state != "reused" else 0.0
        outcome.results[name] = Result(
            state, plan.why if state != "reused" else "", took, str(link), record["metrics"]
        )
    return outcome


def _left(name: str, stop: BaseException, saved: Mapping[str, int]) -> tuple[str, int]:
    """The message and the exit code of a step that was left: 130 on Ctrl-C, 75 on other signals, which a scheduler takes for "start me again"."""
    code = (
        stop.code
        if isinstance(stop, SystemExit)
        else REQUEUE
        if isinstance(stop, Terminated)
        else 130
    )
    if code not in (REQUEUE, 130):
        return (
            f"step {name!r} ended with exit code {code}; finished steps are kept",
            code if isinstance(code, int) and code else 1,
        )
    update = f", after update {saved['update']} of {saved['of']}" if saved else ""
    return (
        f"stopped in step {name!r}; finished steps are kept, the same command goes on from here{update}",
        code,
    )


def _one(plan: Planned, run: Run, done: Mapping[str, Artifact]) -> tuple[str, Mapping[str, Any]]:
    """Reuse or make one step; returns its state and record."""
    say, step = run.console.say, plan.step
    if plan.state == "reused":
        run.store.tidy(plan.key)
        return "reused", run.store.record(plan.key)
    say(f"\n{step.name} {'resumes' if plan.state == 'resumed' else 'runs'}")
    with run.store.making(plan.key, say) as folder:
        if run.store.damage(plan.key) is None:
            say(f"{step.name} reused: another run has just made it")
            return "reused", run.store.record(plan.key)
        started, clock = time.time(), time.perf_counter()
        _forget_peak()
        inputs = {name: _input(value, done) for name, value in step.inputs.items()}
        _freeze(folder, plan, run, inputs)
        subprocess_runner.forget(folder)
        metrics = _start(folder.resolve(), plan, run)
        took = time.perf_counter() - clock
        record = run.store.commit(plan.key, _record(plan, run, metrics, started, took))
    shown = ", ".join(f"{key} {format_number(value)}" for key, value in list(metrics.items())[:4])
    say(f"{step.name} done in {format_seconds(took)}" + (f": {shown}" if shown else ""))
    return plan.state, record


def _start(folder: Path, plan: Planned, run: Run) -> dict[str, Any]:
    """Run the frozen step the way the launch says; returns its metrics."""
    name, trains = plan.step.name, _trains(plan.step)
    if run.launch.backend == "inline":
        return worker.perform(folder, run.console)
    if run.launch.as_job(trains):
        from llmstages.launch import slurm

        return slurm.run(folder, name, run.launch, trains, run.console)
    return subprocess_runner.run(folder, name, run.launch, trains)


def _trains(step: Step) -> bool:
    """Whether launchers may spread a step."""
    return getattr(step.stage, "trains", False)


def _input(value: Any, done: Mapping[str, Artifact]) -> Any:
    if isinstance(value, tuple):
        return [_input(one, done) for one in value]
    if value is None:
        return None
    artifact = sources.fetch(value) if isinstance(value, Source) else done[value.name]
    return {**dc.asdict(artifact), "path": str(artifact.path)}


def _freeze(folder: Path, plan: Planned, run: Run, inputs: Mapping[str, Any]) -> None:
    """Write step.json: all a worker needs, and what a person needs to repeat the step by hand."""
    step, launch = plan.step, run.launch
    frozen = {
        "step": step.name,
        "stage": step.uses,
        "config": to_plain(step.config),
        "inputs": inputs,
        "cwd": os.getcwd(),
        "processes": launch.spread(_trains(step)),
        "launch": dc.asdict(launch),
        "cache": str(run.store.cache.resolve()),
    }
    (folder / "step.json").write_text(
        json.dumps(frozen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _record(
    plan: Planned, run: Run, metrics: Mapping[str, Any], started: float, seconds: float
) -> dict[str, Any]:
    """What is worth knowing about a finished step in ten years."""
    step = plan.step
    package = registry.find(registry.STAGES, step.uses).package
    fed = {name: [] for name in step.inputs}
    for name, one in step.sources():
        fed[name].append(one.name)
    return {
        "step": step.name,
        "stage": step.uses,
        "kind": step.kind,
        "version": str(step.stage.version),
        "package": package,
        "fingerprint": plan.fingerprint,
        "identity": plan.identity,
        "config": to_plain(step.config),
        "inputs": fed,
        "metrics": dict(metrics),
        "why": plan.why,
        "started": started,
        "finished": started + seconds,
        "seconds": round(seconds, 3),
        "peak_mb": 0
        if run.launch.as_job(_trains(step))
        else _peak_mb(run.launch.backend == "inline"),  # 0: of a job it is not known
        "launch": dc.asdict(run.launch),
        "processes": run.launch.spread(_trains(step)),
        "argv": sys.argv,
        "versions": _versions(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "commit": _commit(),
    }


def _forget_peak() -> None:
    """Begin a step's own peak of memory: Linux counts it for the life of a process unless told to start again."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # another system, or not allowed: the peak is then that of the run so far
        return


def _peak_mb(inline: bool) -> int:
    """Peak memory of the step in MB (of the largest child so far, where steps run as processes)."""
    status = Path("/proc/self/status")
    if inline and status.exists():
        return next(
            (
                int(line.split()[1]) // 1024
                for line in status.read_text().splitlines()
                if line.startswith("VmHWM")
            ),
            0,
        )
    return round(
        resource.getrusage(resource.RUSAGE_SELF if inline else resource.RUSAGE_CHILDREN).ru_maxrss
        / 1024
    )


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _commit() -> str | None:
    """The commit of the folder the run was started in, if it is a git repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for what a step imports, taken back afterwards: from Python, the process is the user's."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that closes, stop like Ctrl-C. A training stage may put its own handler in front of this one."""

    def stop(*_: Any) -> None:
        raise Terminated

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # whoever runs us there handles signals
        yield
        return
    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
