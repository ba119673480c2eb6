"""Runs the command line as a user does, and looks at the store that it leaves behind."""

from __future__ import annotations

import dataclasses as dc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmstages.pipeline.store import Store

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "llmstages")
SMOKE = ("run", "--json", "recipe=smoke")

# The smallest values with which a step of reinforcement learning still runs.
SHRUNK = (
    "rl.max_steps=1",
    "rl.batch_size=8",
    "rl.num_generations=4",
    "rl.max_completion_length=16",
)


@dc.dataclass(frozen=True)
class Done:
    """A finished command. ``json`` is the last line of standard output, if it is an object."""

    code: int
    out: str
    err: str
    json: Any = None

    @property
    def states(self) -> dict[str, str]:
        """Step -> new, reused, resumed or failed."""
        return {name: step["state"] for name, step in self.json["steps"].items()}

    @property
    def new(self) -> set[str]:
        """Steps that were not in the store."""
        return {name for name, state in self.states.items() if state != "reused"}


def environment(**variables: str) -> dict[str, str]:
    """This environment with ``llmstages`` on the PATH, one thread and no hub.

    A PYTHONPATH among the variables comes before the present one.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python_paths = [variables.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(filter(None, python_paths)),
        **variables,
    }


def command(
    words: tuple[str, ...] | list[str],
    folder: Path,
    code: int | None = 0,
    stdin: str = "",
    **variables: str,
) -> Done:
    """Run a command in a folder and expect an exit code (None: any). stdin: what it reads."""
    process = subprocess.run(
        words,
        cwd=folder,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert code is None or process.returncode == code, (
        f"exit code {process.returncode}:\n{process.stdout[-1000:]}\n{process.stderr[-3000:]}"
    )
    last_line = (process.stdout.strip().splitlines() or [""])[-1]
    parsed = json.loads(last_line) if last_line.startswith("{") else None
    return Done(process.returncode, process.stdout, process.stderr, parsed)


def llmstages(
    *words: str, folder: Path, code: int | None = 0, stdin: str = "", **variables: str
) -> Done:
    """``llmstages WORDS`` in a folder."""
    return command([*COMMAND, *words], folder, code, stdin, **variables)


def digests(folder: Path) -> dict[str, str]:
    """STEP-FINGERPRINT -> digest of all files of the step.

    Reports are left out: they show how long each step took.
    """
    records = Store(folder / "store").records()
    return {record["key"]: record["digest"] for record in records if record["kind"] != "report"}


def assert_nothing_half(folder: Path) -> set[str]:
    """Every visible folder of the store is a finished step with the right digests.

    Returns the keys of the steps.
    """
    store = Store(folder / "store")
    visible = {path.name for path in store.path.glob("[!.]*")}
    assert visible == set(store.keys()), "a folder without a record is visible"
    for key in visible:
        assert store.verify(key) == []
    return visible
