"""A training stage in one process, or under torchrun in two; prints one JSON line. Tests start it, stop it and kill it.

    python -m tests.core.spread stop KIND FOLDER UPDATE...     straight, then stopped and taken up again at each update
    python -m tests.core.spread save KIND FOLDER               with a checkpoint after every update, from where it was killed
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.core.test_resume import inputs_of, perform

WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


def together() -> None:
    """Wait until all processes are here."""
    if WORLD > 1:
        dist.barrier()


def once(kind: str, folder: Path, inputs: dict[str, Any], update: int = 0, **changes: Any) -> str:
    """Digest of what the stage made; with an update, the last process gets a signal there."""
    together()
    try:
        made, _ = perform(kind, folder, inputs, update if RANK == WORLD - 1 else 0, processes=WORLD, **changes)
    except SystemExit as left:
        return f"left {left.code}"
    finally:
        together()
    return hashlib.sha256(b"".join(name.encode() + content for name, content in sorted(made.items()))).hexdigest()


def main() -> None:
    what, kind, folder, *updates = sys.argv[1:]
    if WORLD > 1:
        dist.init_process_group("gloo")
    given = Path(folder) / "inputs"
    if RANK == 0 and not given.exists():
        inputs_of(kind, given)
    together()
    inputs = inputs_of(kind, given, write=False)
    if what == "save":
        told: dict[str, Any] = {"made": once(kind, Path(folder) / "killed", inputs, save_every=1)}
    else:
        told = {"straight": once(kind, Path(folder) / "straight", inputs)}
        told |= {update: [once(kind, Path(folder) / update, inputs, int(update)), once(kind, Path(folder) / update, inputs)] for update in updates}
    if RANK == 0:
        print("\n" + json.dumps(told), flush=True)
    if WORLD > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
