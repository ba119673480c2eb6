"""Walk a plan: reuse what is there, make the rest, stop at the first failure.

The runner never imports anything heavy itself; a stage does, in the worker or in this process.
"""

from __future__ import annotations

import dataclasses as dc
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmstages.core.config import to_plain
from llmstages.core.console import Console, format_number, format_seconds
from llmstages.core.errors import StageError
from llmstages.core.exit_codes import INTERRUPTED, REQUEUE
from llmstages.core.stage import Artifact
from llmstages.launch import subprocess_runner
from llmstages.launch.config import Launch, foreign_launcher
from llmstages.pipeline import elapsed, sources, step_record, worker
from llmstages.pipeline.plan import Planned, Source, Step, changed_since, lines
from llmstages.pipeline.store import Store

LOG_SUFFIX = ".log"  # no step's name has a dot, so a log never takes the place of a link
SHOWN_METRICS = 4  # in the line that says that a step is done


@dc.dataclass
class Result:
    """What became of one step.

    Attributes:
        state: new, resumed, reused, stopped (by a signal) or failed.
        why: the reason, if it was not reused.
        path: the link to the artifact, or its folder in the store.
    """

    state: str
    why: str = ""
    seconds: float = 0.0
    path: str = ""
    metrics: Mapping[str, Any] = dc.field(default_factory=dict)


@dc.dataclass
class Outcome:
    """What became of a run.

    Attributes:
        results: step -> result, in the order of the plan, up to the first failure.
        artifacts: step -> artifact, of the steps that did not fail.
        error: the message of the failure.
        code: the exit code: 0 done, 1 failed, 75 saved on a signal, 130 stopped by Ctrl-C.
        log: the log of the step that failed, if it has one.
    """

    results: dict[str, Result]
    artifacts: dict[str, Artifact]
    error: str = ""
    code: int = 0
    log: str = ""


@dc.dataclass(frozen=True)
class Run:
    """Where a run happens, how its steps start, and where its lines go.

    Attributes:
        name: of the folder with links to the results, in ``runs``.
        runs: "" for no links.
    """

    store: Store
    name: str = ""
    runs: str = ""
    launch: Launch = dc.field(default_factory=Launch)
    console: Console = dc.field(default_factory=lambda: Console(quiet=True))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: stop as on Ctrl-C, with the exit code that asks to be started again."""


def refuse_other_launchers() -> None:
    """Raise StageError if another launcher started this process, before anything is written."""
    launcher = foreign_launcher()
    if launcher:
        raise StageError(
            f"llmstages was started by another launcher ({launcher}), which makes copies of the "
            "run or leaves processes out. Start it without one; it starts its processes itself: "
            "launch=ddp launch.processes=2 (or zero2, zero3, fsdp, slurm)"
        )


def execute(planned: Sequence[Planned], run: Run) -> Outcome:
    """Make every step of the plan that is not in the store.

    Finished steps are kept whatever happens.

    Raises:
        StageError: another launcher started this process, or Slurm is missing.
    """
    refuse_other_launchers()
    for line in lines(planned):
        run.console.say(line)
    to_make = [plan.step for plan in planned if plan.state != "reused"]
    if any(run.launch.as_job(_trains(step)) for step in to_make):
        from llmstages.launch import slurm

        slurm.check_available()
    inline = run.launch.backend == "inline"
    with _environment(run.launch.environment() if inline else {}):
        return _walk(planned, run)


def _walk(planned: Sequence[Planned], run: Run) -> Outcome:
    outcome = Outcome({}, {})
    for plan in planned:
        name = plan.step.name
        log = log_file(run.runs, run.name, name)
        start = time.perf_counter()
        with run.console.logging(log if plan.state != "reused" else None):
            try:
                with _stop_on_signals():
                    _check_unchanged(plan, planned, run)
                    state, record = _reuse_or_make(plan, run, outcome.artifacts)
            except (KeyboardInterrupt, SystemExit, Exception) as error:
                outcome.error, outcome.code = _describe_end(plan, run, error)
                run.console.note(outcome.error)
                outcome.log = str(log or "")
                state = "stopped" if outcome.code in (INTERRUPTED, REQUEUE) else "failed"
                outcome.results[name] = Result(state, plan.why, time.perf_counter() - start)
                return outcome
        folder = run.store.folder(plan.key)
        outcome.artifacts[name] = Artifact(name, plan.step.kind, folder.resolve(), plan.fingerprint)
        link = run.store.link(run.runs, run.name, name, plan.key) if run.runs else folder
        result = Result(state, path=str(link), metrics=record["metrics"])
        if state != "reused":
            result.why = plan.why
            result.seconds = time.perf_counter() - start
        outcome.results[name] = result
    return outcome


def log_file(runs: str, name: str, step: str) -> Path | None:
    """Where the log of a step lies: beside its link; None where a run has no links."""
    return Path(runs) / name / f"{step}{LOG_SUFFIX}" if runs else None


def _check_unchanged(plan: Planned, planned: Sequence[Planned], run: Run) -> None:
    """Raise StageError if a file that a step reads was edited while the steps before it ran."""
    if plan.state == "reused":
        return
    changes = changed_since(plan, planned, run.store)
    if changes:
        raise StageError(
            f"step {plan.step.name!r}: {', '.join(changes)} since this run was planned. "
            "Run it again; finished steps are kept"
        )


def _describe_end(plan: Planned, run: Run, error: BaseException) -> tuple[str, int]:
    """The message and the exit code after a step that did not finish."""
    name = plan.step.name
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        saved = subprocess_runner.read_stop(run.store.temporary(plan.key))
        return _describe_stop(name, error, saved)
    # The boundary: whatever a stage raises ends as one message.
    worker.note_error(run.console, error)
    return worker.error_message(name, error), 1


def _describe_stop(
    name: str, stop: KeyboardInterrupt | SystemExit, saved: Mapping[str, int]
) -> tuple[str, int]:
    """The message and the exit code after a step that was stopped.

    The code is 130 after Ctrl-C, and 75 after other signals: a scheduler takes it for "start me
    again".
    """
    if isinstance(stop, SystemExit):
        code = stop.code
    elif isinstance(stop, Terminated):
        code = REQUEUE
    else:
        code = INTERRUPTED
    if code not in (REQUEUE, INTERRUPTED):
        message = f"step {name!r} ended with exit code {code}; finished steps are kept"
        return message, code if isinstance(code, int) and code else 1
    message = (
        f"stopped in step {name!r}; finished steps are kept, the same command continues from here"
    )
    if saved:
        message += f", after update {saved['update']} of {saved['of']}"
    return message, int(code)


def _reuse_or_make(
    plan: Planned, run: Run, done: Mapping[str, Artifact]
) -> tuple[str, Mapping[str, Any]]:
    """Reuse or make one step; return its state and its record."""
    say, step = run.console.say, plan.step
    if plan.state == "reused":
        run.store.tidy(plan.key)
        return "reused", run.store.record(plan.key)
    say(f"\n{step.name} {'resumes' if plan.state == 'resumed' else 'runs'}")
    with run.store.making(plan.key, say) as folder:
        # Another run may have made it while this one waited for the lock.
        if run.store.damage(plan.key) is None:
            say(f"{step.name} reused: another run has just made it")
            return "reused", run.store.record(plan.key)
        started = time.time()
        clock = time.perf_counter()
        seconds_before = elapsed.begin(folder, run.store.has_work(plan.key))
        try:
            metrics = _make(folder, step, run, done)
        finally:
            elapsed.end(folder)
        seconds = time.perf_counter() - clock
        record = step_record.make_record(
            plan, run.launch, metrics, started, seconds, seconds_before
        )
        record = run.store.commit(plan.key, record)
    line = f"{step.name} done in {format_seconds(seconds)}"
    if seconds_before:
        line += f", {format_seconds(seconds + seconds_before)} with what it resumed"
    shown = list(metrics.items())[:SHOWN_METRICS]
    if shown:
        line += ": " + ", ".join(f"{name} {format_number(value)}" for name, value in shown)
    say(line)
    return plan.state, record


def _make(folder: Path, step: Step, run: Run, done: Mapping[str, Artifact]) -> dict[str, Any]:
    """Freeze a step, run it and return its metrics."""
    step_record.reset_peak_memory()
    inputs = {name: _freeze_input(value, done) for name, value in step.inputs.items()}
    _freeze(folder, step, run, inputs)
    subprocess_runner.clear_result(folder)
    # A worker changes its working directory before it reads the folder.
    return _start(folder.resolve(), step, run)


def _start(folder: Path, step: Step, run: Run) -> dict[str, Any]:
    """Run the frozen step as the launch group says; return its metrics."""
    trains = _trains(step)
    if run.launch.backend == "inline":
        return worker.perform(folder, run.console)
    if run.launch.as_job(trains):
        from llmstages.launch import slurm

        return slurm.run(folder, step.name, run.launch, trains, run.console)
    return subprocess_runner.run(folder, step.name, run.launch, trains)


def _trains(step: Step) -> bool:
    """Whether launchers may distribute a step over processes."""
    return getattr(step.stage, "trains", False)


def _freeze_input(value: Any, done: Mapping[str, Artifact]) -> Any:
    """The artifact of an input as plain values; a source from outside is fetched."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return [_freeze_input(item, done) for item in value]
    artifact = sources.fetch(value) if isinstance(value, Source) else done[value.name]
    return {**dc.asdict(artifact), "path": str(artifact.path)}


def _freeze(folder: Path, step: Step, run: Run, inputs: Mapping[str, Any]) -> None:
    """Write step.json: all that a worker needs, also to repeat the step by hand."""
    log = log_file(run.runs, run.name, step.name)
    frozen = {
        "step": step.name,
        "stage": step.uses,
        "config": to_plain(step.config),
        "inputs": inputs,
        "cwd": str(Path.cwd()),
        "processes": run.launch.process_count(_trains(step)),
        "launch": dc.asdict(run.launch),
        "cache": str(run.store.cache.resolve()),
        "log": str(log.resolve()) if log else "",
    }
    text = json.dumps(frozen, indent=1, ensure_ascii=False) + "\n"
    (folder / "step.json").write_text(text, encoding="utf-8")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what a step imports, and remove them afterwards.

    When a run is started from Python, the process belongs to the user.
    """
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a terminal that closes, stop like Ctrl-C.

    A training stage may put its own handler in front of this one.
    """

    def stop(*_: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; the caller's own ones stay.
        yield
        return
    handlers = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            handlers[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
