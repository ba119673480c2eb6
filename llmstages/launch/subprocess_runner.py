"""A step in processes of its own: start them, ask them to save, end them, and read their result."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.exit_codes import INTERRUPTED, REQUEUE, STOPPED
from llmstages.launch.config import Launch

# After a signal, a checkpoint must be written within this time. A second signal does not wait.
SAVE_SECONDS = 600
STDERR = 2  # file descriptor: standard output belongs to the result of the run


def run(folder: Path, step: str, launch: Launch, trains: bool) -> dict[str, Any]:
    """Run the worker on a frozen step and return its metrics.

    On KeyboardInterrupt training saves first.

    Args:
        folder: of the frozen step.
        step: its name, for messages.
        trains: whether the stage may be distributed.

    Raises:
        StageError: the step failed, or its process ended without a message.
        SystemExit: the step was stopped and has saved.
    """
    # With a process group of its own, the child does not see Ctrl-C. The runner does, and passes
    # it on in a way that leaves time to save.
    child = subprocess.Popen(
        launch.command(folder, trains),
        env={**os.environ, **launch.environment(trains)},
        stdout=STDERR,
        process_group=0,
    )
    try:
        code = child.wait()
    except KeyboardInterrupt:
        _save_and_end(child, step)
        raise
    metrics = read_result(folder)
    if metrics is None and code in (REQUEUE, INTERRUPTED):
        raise SystemExit(code)
    if code or metrics is None:
        raise StageError(
            f"the worker of step {step!r} {_describe_end(code)} and left no message; its own "
            f"output is above. Repeat it by hand: {sys.executable} -m llmstages.pipeline.worker "
            f"{folder}"
        )
    return metrics


def _save_and_end(child: subprocess.Popen[Any], step: str) -> None:
    try:
        ask_to_save(child)
        child.wait(SAVE_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"step {step!r} has not saved within {SAVE_SECONDS} s and is ended", file=sys.stderr)
    finally:
        kill(child)


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    text = f"was killed by signal {-code}"
    if -code == signal.SIGKILL:
        text += " (often: out of memory)"
    return text


def read_result(folder: Path) -> dict[str, Any] | None:
    """The metrics that a worker left, or None if it left nothing.

    Raises:
        StageError: the worker left an error.
        OSError: the disk of the worker was full.
        SystemExit, KeyboardInterrupt: the worker was stopped and has saved.
    """
    error_file, metrics_file = folder / "error.json", folder / "metrics.json"
    if error_file.exists():
        error = json.loads(error_file.read_text(encoding="utf-8"))
        if error["full"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise StageError(error["message"])
    # The exit code does not say this: torchrun ends with 1, whatever its processes end with.
    if stop := read_stop(folder):
        if stop["signal"] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(REQUEUE)
    if not metrics_file.exists():
        return None
    return json.loads(metrics_file.read_text(encoding="utf-8"))


def read_stop(folder: Path) -> dict[str, int]:
    """Where training was when it saved and left: {"update", "of", "signal"}; empty if it did not.

    Args:
        folder: of the frozen step.
    """
    file = folder / STOPPED
    if not file.exists():
        return {}
    return json.loads(file.read_text(encoding="utf-8"))


def clear_result(folder: Path) -> None:
    """Remove what an earlier attempt left to be read."""
    for name in ("metrics.json", "error.json", STOPPED):
        (folder / name).unlink(missing_ok=True)


def ask_to_save(child: subprocess.Popen[Any]) -> None:
    """Send SIGTERM to the workers themselves.

    torchrun would pass the signal on and kill them half a minute later, saved or not.
    """
    for process in _workers(child) or [child.pid]:
        _send(process, signal.SIGTERM)


def kill(child: subprocess.Popen[Any]) -> None:
    """Kill whatever is left of a child and of its workers."""
    processes = _workers(child)
    if child.poll() is None:
        processes.append(child.pid)
    for process in processes:
        _send(process, signal.SIGKILL)
    child.wait()


def _workers(child: subprocess.Popen[Any]) -> list[int]:
    """Process ids of the workers that torchrun started.

    It is empty where the child is itself the worker, and where the system has no /proc.
    """
    command = child.args
    assert isinstance(command, list)
    if "torch.distributed.run" not in command or child.poll() is not None:
        return []
    workers = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except OSError:  # the process has just ended
            continue
        # "pid (name) state parent ...", where the name may hold any character
        fields_after_name = text.rpartition(")")[2].split()
        parent = int(fields_after_name[1])
        if parent == child.pid:
            workers.append(int(stat.parent.name))
    return workers


def _send(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:  # the process has just ended
        return
