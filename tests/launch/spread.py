"""A training stage in one process, or under torchrun in two; prints one JSON line. Tests start it, stop it and kill it.

python -m tests.launch.spread stop KIND FOLDER UPDATE...     straight, then stopped and taken up again at each update
python -m tests.launch.spread save KIND FOLDER               with a checkpoint after every update, from where it was killed
python -m tests.launch.spread bad KIND FOLDER                a loss that is not a number, at update 3 of the last process alone
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from llmstages.core.exit_codes import hard_exit
from tests.train.test_resume import inputs_of, perform

WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


def together() -> None:
    """Wait until all processes are here."""
    if WORLD > 1:
        dist.barrier()


def once(kind: str, folder: Path, inputs: dict[str, Any], update: int = 0, **changes: Any) -> str:
    """Digest of what the stage made; with an update, the last process gets a signal there."""
    together()
    try:
        made, _ = perform(
            kind, folder, inputs, update if RANK == WORLD - 1 else 0, processes=WORLD, **changes
        )
    except SystemExit as left:
        return f"left {left.code}"
    finally:
        together()
    return hashlib.sha256(
        b"".join(name.encode() + content for name, content in sorted(made.items()))
    ).hexdigest()


def bad(kind: str, folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """What each process says, and whether its weights are those before the update."""
    from transformers import Trainer

    from llmstages.core.errors import StageError

    real, seen = Trainer.training_step, {}

    def training_step(self: Any, model: Any, *rest: Any, **more: Any) -> Any:
        loss = real(self, model, *rest, **more)
        if self.state.global_step == 2:
            seen.setdefault("weights", [p.detach().clone() for p in model.parameters()])
            seen["model"] = model
            if (
                RANK == WORLD - 1
            ):  # as a row would do that is broken: the loss and all that follows from it
                loss = loss * float("nan")
                for p in model.parameters():
                    p.grad.mul_(float("nan"))
        return loss

    Trainer.training_step = training_step
    try:
        perform(kind, folder, inputs, processes=WORLD)
    except StageError as error:
        same = all(
            bool((a == b).all())
            for a, b in zip(seen["weights"], seen["model"].parameters(), strict=True)
        )
        told: list[Any] = [None] * WORLD
        dist.all_gather_object(told, [str(error), same])
        return {"told": told}
    return {"told": []}


def main() -> None:
    what, kind, folder, *updates = sys.argv[1:]
    if WORLD > 1:
        dist.init_process_group("gloo")
    given = Path(folder) / "inputs"
    if RANK == 0 and not given.exists():
        inputs_of(kind, given)
    together()
    inputs = inputs_of(kind, given, write=False)
    if what == "bad":
        told: dict[str, Any] = bad(kind, Path(folder) / "bad", inputs)
    elif what == "save":
        told = {"made": once(kind, Path(folder) / "killed", inputs, save_every=1)}
    else:
        told = {"straight": once(kind, Path(folder) / "straight", inputs)}
        told |= {
            update: [
                once(kind, Path(folder) / update, inputs, int(update)),
                once(kind, Path(folder) / update, inputs),
            ]
            for update in updates
        }
    if RANK == 0:
        print("\n" + json.dumps(told), flush=True)
    if WORLD > 1:
        dist.destroy_process_group()
        hard_exit(0)


if __name__ == "__main__":
    main()
