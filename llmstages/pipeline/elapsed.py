"""How long a step has taken, the attempts that were interrupted included.

The temporary folder of a step notes when an attempt began and how long those before it took. An
attempt that was killed could not say how long it took: it counts up to its last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from llmstages.core.artifacts import CHECKPOINT_PREFIX, CHECKPOINTS

FILE = "elapsed.json"


def begin(folder: Path, resumes: bool) -> float:
    """Note that an attempt begins, and return the seconds that those before it took.

    Args:
        folder: the temporary folder of the step.
        resumes: whether the attempt continues an earlier one. Otherwise their time was for
            nothing and does not belong to the result.
    """
    seconds = _seconds_so_far(folder) if resumes else 0.0
    _write(folder, {"before": seconds, "started": time.time()})
    return seconds


def end(folder: Path) -> None:
    """Note that the attempt has ended, however it did."""
    facts = _read(folder)
    if facts:
        _write(folder, {**facts, "ended": time.time()})


def _seconds_so_far(folder: Path) -> float:
    facts = _read(folder)
    if not facts:
        return 0.0
    ended = facts.get("ended") or _last_checkpoint(folder)
    return facts["before"] + max(ended - facts["started"], 0.0)


def _last_checkpoint(folder: Path) -> float:
    """When the last checkpoint was written, in seconds since the epoch; 0 if there is none."""
    times = [0.0]
    for path in (folder / "work" / CHECKPOINTS).glob(CHECKPOINT_PREFIX + "*"):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def _read(folder: Path) -> dict[str, Any]:
    """What an attempt noted; empty if there is nothing that can be read."""
    try:
        facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {"before": float(facts["before"]), "started": float(facts["started"]), **facts}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(folder: Path, facts: dict[str, Any]) -> None:
    # A full disk has a message of its own, which this must not hide.
    with contextlib.suppress(OSError):
        (folder / FILE).write_text(json.dumps(facts), encoding="utf-8")
