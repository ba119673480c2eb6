"""Run one frozen step: ``python -m llmstages.pipeline.worker FOLDER`` fills FOLDER/out.

It reads FOLDER/step.json. The runner calls perform() itself for launch=inline, so both ways go
through the same file on disk, and any step can be repeated by hand with the command above. The
first process writes metrics.json, or error.json with one clear message. If training was asked to
leave and has saved, there is stopped.json instead.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmstages.core import artifacts, registry
from llmstages.core.config import build_config
from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.core.exit_codes import INTERRUPTED, STOPPED, hard_exit
from llmstages.core.stage import Artifact, Context
from llmstages.launch.config import WORLD_SIZE_VARIABLES, Launch


def perform(folder: Path, console: Console) -> dict[str, Any]:
    """Run the step frozen in ``folder`` in this process and return its metrics.

    Raises:
        StageError: a mistake that the user can fix. A stage may raise anything else as well.
    """
    frozen = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    _check_process_count(frozen)
    stage: Any = registry.load_stage(frozen["stage"])
    config = build_config(stage.Config, frozen["config"], frozen["step"])
    context = Context(
        step=frozen["step"],
        out=folder / "out",
        work=folder / "work",
        inputs={name: _load_input(value) for name, value in frozen["inputs"].items()},
        processes=frozen["processes"],
        cache=Path(frozen["cache"]),
        progress=console.progress,
        say=lambda line: console.say(f"  {line}"),
    )
    # Libraries print, but standard output belongs to the result of the run.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if "LLMSTAGES_DEBUG" not in os.environ:
            _log_warnings(console)
        metrics = stage().run(config, context)
    if _rank() == 0:
        absent = artifacts.missing(stage.output, context.out)
        if absent:
            raise StageError(
                f"stage {frozen['stage']} left its {stage.output} without {', '.join(absent)} "
                "(see llmstages/core/artifacts.py); nothing was committed"
            )
    return {name: _plain_metric(name, value) for name, value in (metrics or {}).items()}


def _log_warnings(console: Console) -> None:
    """Send warnings of libraries to the log of the step, where they disturb nobody."""

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        console.note(f"{filename}:{lineno}: {category.__name__}: {message}")

    warnings.simplefilter("default")
    warnings.showwarning = note


def _check_process_count(frozen: Mapping[str, Any]) -> None:
    """Compare the processes asked for with those that the launcher says it started.

    Launchers were seen to start one process where two were asked for, with exit code 0.
    """
    sizes = {}
    for name in WORLD_SIZE_VARIABLES:
        size = os.environ.get(name, "1")
        if size not in ("", "1"):
            sizes[name] = size
    for size in sizes.values() or ["1"]:
        if size != str(frozen["processes"]):
            evidence = f" ({sizes})" if sizes else ""
            raise StageError(
                f"step {frozen['step']!r} asked for {frozen['processes']} processes and the "
                f"launcher started {size}{evidence}; nothing was trained. Check launch.processes "
                "and the launcher's output"
            )


def _load_input(value: Any) -> Any:
    """An Artifact from its frozen fields; a tuple of them for a "many" input."""
    if value is None:
        return None
    if isinstance(value, list):
        return tuple(_load_input(item) for item in value)
    return Artifact(value["name"], value["kind"], Path(value["path"]), value["fingerprint"])


def _plain_metric(name: str, value: Any) -> Any:
    """A metric as JSON can hold it: None for NaN and infinity."""
    if hasattr(value, "item"):  # scalars of numpy and torch
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is not None and not isinstance(value, (int, float, str)):
        raise StageError(f"metric {name!r} is a {type(value).__name__}; a metric is a number")
    return value


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def error_message(step: str, error: BaseException) -> str:
    """One clear message for whatever a stage raised."""
    if isinstance(error, StageError):
        return str(error)
    kept = "The step's folder was not committed; finished steps are kept"
    type_name = type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            f"step {step!r} ran out of memory ({error or type_name}). Make its batch or model "
            f"smaller, or distribute it: launch=zero2. {kept}"
        )
    text = str(error).strip() or type_name
    return (
        f"step {step!r} failed: {type_name}: {text}. LLMSTAGES_DEBUG=1 shows the traceback. {kept}"
    )


def note_error(console: Console, error: BaseException) -> None:
    """Write the traceback of an error to the log, and print it if it is asked for."""
    if "LLMSTAGES_DEBUG" in os.environ:
        traceback.print_exc()
    if not isinstance(error, StageError):
        console.note("".join(traceback.format_exception(error)))


def main() -> int:
    """Run the step named on the command line and return the exit code of the process."""
    folder = Path(sys.argv[1]).resolve()
    frozen = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    # Relative paths in a configuration count from where the run was started.
    os.chdir(frozen["cwd"])
    launch: Launch = build_config(Launch, frozen["launch"], "launch")
    os.environ.update(launch.request_variables())
    console = Console(to_stderr=True, quiet=_rank() > 0)
    with console.logging(_log_of(frozen)):
        return _perform_and_write(folder, frozen["step"], console)


def _log_of(frozen: Mapping[str, Any]) -> Path | None:
    """The log of the step, for the first process; None where there is none."""
    log = frozen.get("log")
    return Path(log) if log and _rank() == 0 else None


def _perform_and_write(folder: Path, step: str, console: Console) -> int:
    """Perform a step, leave its metrics or its error for the runner; return the exit code."""
    try:
        metrics = perform(folder, console)
    except (KeyboardInterrupt, SystemExit) as stop:
        if _under_torchrun() and (folder / STOPPED).exists():
            # torchrun reports any other code as a failure, with a traceback. The runner reads the
            # file instead.
            return 0
        if isinstance(stop, SystemExit):
            raise
        return INTERRUPTED
    except Exception as error:  # the boundary: whatever a stage raises ends as one message
        note_error(console, error)
        _write_error(folder, step, error)
        return 1
    if _rank() == 0:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return 0


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _write_error(folder: Path, step: str, error: Exception) -> None:
    """Leave the error for the runner, unless another process has left one already.

    The first process that fails knows the cause.
    """
    text = json.dumps(
        {
            "message": error_message(step, error),
            "full": "No space left on device" in str(error),
        }
    )
    with (
        contextlib.suppress(FileExistsError),
        (folder / "error.json").open("x", encoding="utf-8") as file,
    ):
        file.write(text)


if __name__ == "__main__":
    if _under_torchrun():
        hard_exit(main())
    sys.exit(main())
