"""The command line as a user meets it, and what the tests of this folder ask about a store."""

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
SHRUNK = (
    "rl.max_steps=1",
    "rl.batch_size=8",
    "rl.num_generations=4",
    "rl.max_completion_length=16",
)  # the least that RL still calls a run


@dc.dataclass(frozen=True)
class Done:
    """A finished command. json: the last line of standard output, where that is an object."""

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


def environment(**more: str) -> dict[str, str]:
    """Ours, with ``llmstages`` on the PATH, one thread, and no hub. PYTHONPATH: folders of further packages."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = os.pathsep.join(
        part for part in (more.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")) if part
    )
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": path,
        "PYTHONPATH": found,
        **more,
    }


def command(
    words: tuple[str, ...] | list[str], folder: Path, code: int | None = 0, **more: str
) -> Done:
    """Run a command in a folder and expect an exit code (None: any)."""
    made = subprocess.run(
        words, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=600
    )
    assert code is None or made.returncode == code, (
        f"exit code {made.returncode}:\n{made.stdout[-1000:]}\n{made.stderr[-3000:]}"
    )
    last = (made.stdout.strip().splitlines() or [""])[-1]
    return Done(
        made.returncode,
        made.stdout,
        made.stderr,
        json.loads(last) if last.startswith("{") else None,
    )


def llmstages(*words: str, folder: Path, code: int | None = 0, **more: str) -> Done:
    """``llmstages WORDS`` in a folder."""
    return command([*COMMAND, *words], folder, code, **more)


def digests(folder: Path) -> dict[str, str]:
    """STEP-FINGERPRINT -> digest of all its files. Without reports, which show how long each step took."""
    records = Store(folder / "store").records()
    return {record["key"]: record["digest"] for record in records if record["kind"] != "report"}


def assert_nothing_half(folder: Path) -> set[str]:
    """Every folder one can see in the store is a finished step, digest by digest. Returns the steps."""
    store = Store(folder / "store")
    seen = {path.name for path in store.path.glob("[!.]*")}
    assert seen == set(store.keys()), "a folder without a record is visible"
    assert [wrong for key in seen for wrong in store.verify(key)] == []
    return seen
