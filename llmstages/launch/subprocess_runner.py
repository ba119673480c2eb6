"""A step in processes of its own: started, told to save, ended, and what it left read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.exit_codes import REQUEUE, STOPPED
from llmstages.launch.config import Launch

SAVING = 600  # seconds in which a checkpoint must be written after a signal; a second signal does not wait for it


def run(folder: Path, step: str, launch: Launch, trains: bool) -> dict[str, Any]:
    """Run the worker on a frozen step; returns its metrics. KeyboardInterrupt lets training save first."""
    # a group of its own: Ctrl-C reaches the runner alone, which passes it on in a way that leaves time to save
    child = subprocess.Popen(
        launch.command(folder, trains),
        env={**os.environ, **launch.environment(trains)},
        stdout=2,
        process_group=0,
    )
    try:
        code = child.wait()
    except KeyboardInterrupt:
        try:
            tell(child)
            child.wait(SAVING)
        except subprocess.TimeoutExpired:
            print(f"step {step!r} has not saved within {SAVING} s and is ended", file=sys.stderr)
        finally:
            end(child)
        raise
    metrics = told(folder)
    if metrics is None and code in (REQUEUE, 130):
        raise SystemExit(code)
    if code or metrics is None:
        killed = (
            f"was killed by signal {-code}{' (often: out of memory)' if code == -9 else ''}"
            if code < 0
            else f"ended with exit code {code}"
        )
        raise StageError(
            f"the worker of step {step!r} {killed} and left no message; its own output is above. Repeat it by hand: "
            f"{sys.executable} -m llmstages.pipeline.worker {folder}"
        )
    return metrics


def told(folder: Path) -> dict[str, Any] | None:
    """What a worker left: its metrics, its error or its stop raised again, or None if it left nothing."""
    if (folder / "error.json").exists():
        error = json.loads((folder / "error.json").read_text(encoding="utf-8"))
        raise (
            StageError(error["message"])
            if not error["full"]
            else OSError(28, "No space left on device")
        )
    if stop := stopped(folder):  # torchrun itself ends with 1, whatever its processes end with
        raise KeyboardInterrupt if stop["signal"] == signal.SIGINT else SystemExit(REQUEUE)
    if not (folder / "metrics.json").exists():
        return None
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def stopped(folder: Path) -> dict[str, int]:
    """Where training was when it saved and left: {"update", "of", "signal"}; empty if it did not."""
    file = folder / STOPPED
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def forget(folder: Path) -> None:
    """Remove what an earlier attempt left to be read back."""
    for name in ("metrics.json", "error.json", STOPPED):
        (folder / name).unlink(missing_ok=True)


def tell(child: subprocess.Popen[Any]) -> None:
    """SIGTERM to the workers themselves: torchrun would pass it on, and kill them half a minute later, saved or not."""
    for number in _workers(child) or [child.pid]:
        _send(number, signal.SIGTERM)


def end(child: subprocess.Popen[Any]) -> None:
    """Kill whatever is left of it."""
    for number in [*_workers(child), *([child.pid] if child.poll() is None else [])]:
        _send(number, signal.SIGKILL)
    child.wait()


def _workers(child: subprocess.Popen[Any]) -> list[int]:
    """Process numbers of the workers that torchrun started; none where the child is the worker, or the system has no /proc."""
    if "torch.distributed.run" not in child.args or child.poll() is not None:
        return []
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(
                stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            )
        except OSError:  # it has just ended
            continue
        if parent == child.pid:
            found.append(int(stat.parent.name))
    return found


def _send(number: int, what: signal.Signals) -> None:
    try:
        os.kill(number, what)
    except ProcessLookupError:  # it has just ended
        return
