"""Run one frozen step: ``python -m llmstages.pipeline.worker FOLDER`` reads FOLDER/step.json and fills FOLDER/out.

The runner calls perform() itself for launch=inline, so both ways go through the same file on disk, and any step can be
repeated by hand with the command above. The first process writes metrics.json, error.json with one clear message, or, where
training was told to leave and has saved, stopped.json.
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
from llmstages.core.exit_codes import STOPPED, hard_exit
from llmstages.core.stage import Artifact, Context
from llmstages.launch.config import WORLDS, Launch


def perform(folder: Path, console: Console) -> dict[str, Any]:
    """Run the step frozen in ``folder`` in this process; returns its metrics."""
    frozen = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    _check_world(frozen)
    stage = registry.load_stage(frozen["stage"])
    config = build_config(stage.Config, frozen["config"], frozen["step"])
    inputs = {name: _artifacts(value) for name, value in frozen["inputs"].items()}
    context = Context(
        step=frozen["step"],
        out=folder / "out",
        work=folder / "work",
        inputs=inputs,
        processes=frozen["processes"],
        cache=Path(frozen["cache"]),
        progress=console.progress,
        say=lambda line: console.say(f"  {line}"),
    )
    # libraries print; standard output belongs to the result
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if "LLMSTAGES_DEBUG" not in os.environ:
            warnings.simplefilter("ignore")
        metrics = stage().run(config, context)
    if _rank() == 0 and (absent := artifacts.missing(stage.output, folder / "out")):
        raise StageError(
            f"stage {frozen['stage']} left its {stage.output} without {', '.join(absent)} (see llmstages/kinds.py); "
            "nothing was committed"
        )
    return {name: _number(name, value) for name, value in (metrics or {}).items()}


def _check_world(frozen: Mapping[str, Any]) -> None:
    """Launchers were seen to start one process where two were asked for, with exit code 0: so count."""
    worlds = {
        name: os.environ[name] for name in WORLDS if os.environ.get(name, "1") not in ("", "1")
    }
    for world in worlds.values() or ["1"]:
        if world != str(frozen["processes"]):
            raise StageError(
                f"step {frozen['step']!r} asked for {frozen['processes']} processes and the launcher started {world}"
                f"{f' ({worlds})' if worlds else ''}; nothing was trained. Check launch.processes and the launcher's output"
            )


def _artifacts(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_artifacts(one) for one in value)
    return value and Artifact(
        value["name"], value["kind"], Path(value["path"]), value["fingerprint"]
    )


def _number(name: str, value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value  # numpy and torch scalars
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    if not isinstance(value, (int, float, str, type(None))):
        raise StageError(f"metric {name!r} is a {type(value).__name__}; a metric is a number")
    return value


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def message(step: str, error: BaseException) -> str:
    """One clear message for whatever a stage raised."""
    if isinstance(error, StageError):
        return str(error)
    kept = "The step's folder was not committed; finished steps are kept"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            f"step {step!r} ran out of memory ({error or type(error).__name__}). Make its batch or model smaller, or spread it: "
            f"launch=zero2. {kept}"
        )
    text = str(error).strip() or type(error).__name__
    return f"step {step!r} failed: {type(error).__name__}: {text}. LLMSTAGES_DEBUG=1 shows the traceback. {kept}"


def main() -> int:
    """Entry point of a worker process."""
    folder = Path(sys.argv[1]).resolve()
    frozen = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    os.chdir(frozen["cwd"])
    os.environ.update(build_config(Launch, frozen["launch"], "launch").asked())
    try:
        metrics = perform(folder, Console(to_stderr=True, quiet=_rank() > 0))
    except (KeyboardInterrupt, SystemExit) as stop:
        if "TORCHELASTIC_RUN_ID" in os.environ and (folder / STOPPED).exists():
            return 0  # to torchrun anything else is a failure, which it tells with a traceback; the runner reads the file
        if isinstance(stop, SystemExit):
            raise
        return 130
    except Exception as error:  # the boundary: whatever a stage raises ends as one message
        if "LLMSTAGES_DEBUG" in os.environ:
            traceback.print_exc()
        full = "No space left on device" in str(error)
        with (
            contextlib.suppress(FileExistsError),
            open(folder / "error.json", "x", encoding="utf-8") as told,
        ):  # the first to fail knows the cause
            told.write(json.dumps({"message": message(frozen["step"], error), "full": full}))
        return 1
    if _rank() == 0:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return 0


if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:
        hard_exit(main())
    sys.exit(main())
