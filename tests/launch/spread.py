"""A training stage in one process, or under torchrun in two. Tests start, stop and kill it.

python -m tests.launch.spread stop KIND FOLDER UPDATE...
    train without a stop, then stop at each update and resume
python -m tests.launch.spread save KIND FOLDER
    save a checkpoint after every update, and resume from the newest
python -m tests.launch.spread bad KIND FOLDER
    make the loss NaN at update 3, in the last process alone

It prints one JSON line.
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
from tests.train.training_steps import inputs_of, perform

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
IS_LAST = RANK == WORLD - 1


def wait_for_all() -> None:
    """Wait until all processes are here."""
    if WORLD > 1:
        dist.barrier()


def train(kind: str, folder: Path, inputs: dict[str, Any], stop: int = 0, **changes: Any) -> str:
    """The digest of what the stage makes.

    Args:
        stop: the update at which the last process gets a signal; 0 for none.
    """
    wait_for_all()
    try:
        files, _ = perform(kind, folder, inputs, stop if IS_LAST else 0, processes=WORLD, **changes)
    except SystemExit as left:
        return f"left {left.code}"
    finally:
        wait_for_all()
    content = b"".join(name.encode() + data for name, data in sorted(files.items()))
    return hashlib.sha256(content).hexdigest()


def train_with_nan(kind: str, folder: Path, inputs: dict[str, Any]) -> list[Any]:
    """The error of each process, and whether its weights are those before the update."""
    from transformers import Trainer

    from llmstages.core.errors import StageError

    original_step = Trainer.training_step
    seen: dict[str, Any] = {}

    def training_step(self: Any, model: Any, *args: Any, **options: Any) -> Any:
        loss = original_step(self, model, *args, **options)
        if self.state.global_step == 2:
            seen.setdefault("weights", [p.detach().clone() for p in model.parameters()])
            seen["model"] = model
            if IS_LAST:
                # A broken row would do this: NaN in the loss and in all that follows from it.
                loss = loss * float("nan")
                for weight in model.parameters():
                    weight.grad.mul_(float("nan"))
        return loss

    Trainer.training_step = training_step
    try:
        perform(kind, folder, inputs, processes=WORLD)
    except StageError as error:
        pairs = zip(seen["weights"], seen["model"].parameters(), strict=True)
        unchanged = all(bool((before == after).all()) for before, after in pairs)
        reports: list[Any] = [None] * WORLD
        dist.all_gather_object(reports, [str(error), unchanged])
        return reports
    return []


def main() -> None:
    what, kind, folder_name, *updates = sys.argv[1:]
    folder = Path(folder_name)
    if WORLD > 1:
        dist.init_process_group("gloo")
    input_folder = folder / "inputs"
    if RANK == 0 and not input_folder.exists():
        inputs_of(kind, input_folder)
    wait_for_all()
    inputs = inputs_of(kind, input_folder, write=False)
    result: dict[str, Any] = {}
    if what == "bad":
        result["told"] = train_with_nan(kind, folder / "bad", inputs)
    elif what == "save":
        result["made"] = train(kind, folder / "killed", inputs, save_every=1)
    else:
        result["straight"] = train(kind, folder / "straight", inputs)
        for update in updates:
            stopped = train(kind, folder / update, inputs, int(update))
            result[update] = [stopped, train(kind, folder / update, inputs)]
    if RANK == 0:
        print("\n" + json.dumps(result), flush=True)
    if WORLD > 1:
        dist.destroy_process_group()
        hard_exit(0)


if __name__ == "__main__":
    main()
