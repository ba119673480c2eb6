"""What the processes that share a training step tell each other. With one process, all of it is at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context

ASKED = "LLMSTAGES_LAUNCH"  # see launch.Launch.asked
KINDS = {"NO": "none", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp"}  # of accelerate


def requested_backend() -> str:
    """How the runner spread this step (launch.Launch.kind); "none" where it did not say."""
    return os.environ.get(ASKED, "none")


def first_process() -> bool:
    """Whether this process writes the artifact; with several, the others only compute."""
    return os.environ.get("RANK", "0") == "0"


def check_world(trainer: Any, ctx: Context) -> None:
    """Hold what the launcher gave against what was asked for; StageError on any difference.

    Several plausible commands train one process where two were asked for, or independent copies, and end with exit code 0.
    """
    accelerator, wanted, kind = trainer.accelerator, os.environ.get(ASKED), sharding_of(trainer)
    if trainer.args.n_gpu > 1:
        raise StageError(
            f"step {ctx.step!r} would use {trainer.args.n_gpu} GPUs in one process, which multiplies its batch; choose launch=ddp launch.processes="
            f"{trainer.args.n_gpu}, or show it one: CUDA_VISIBLE_DEVICES=0"
        )
    if accelerator.num_processes != ctx.processes or wanted and kind != wanted:
        raise StageError(
            f"step {ctx.step!r} was to be spread as {wanted or 'asked'} over {ctx.processes} processes, but accelerate made {kind} over "
            f"{accelerator.num_processes} of it; nothing was trained. Start it by `llmstages run launch=...`, not inside another launcher, and without "
            "ACCELERATE_* variables of your own"
        )


def sharding_of(trainer: Any) -> str:
    """How accelerate spreads a training: none, ddp, zero1 to zero3, or fsdp."""
    name = trainer.accelerator.distributed_type.name
    return (
        f"zero{trainer.accelerator.state.deepspeed_plugin.zero_stage}"
        if name == "DEEPSPEED"
        else KINDS.get(name, name.lower())
    )


class Processes:
    """What the processes of a step tell each other, on the CPU, so that no GPU has to wait for it."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.dist = (
            dist
            if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
            else None
        )
        self.group = self.dist.new_group(backend="gloo") if self.dist else None
        self.first = not self.dist or self.dist.get_rank() == 0

    def share(self, make: Callable[[], Any]) -> Any:
        """What the first process makes; an error there is an error everywhere."""
        told: list[Any] = [None, None]
        if self.first:
            try:
                told = [make(), None]
            except Exception as error:  # raised again below, in every process
                told = [None, error]
        if self.dist:
            self.dist.broadcast_object_list(told, src=0, group=self.group)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def most(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        if not self.dist:
            return list(values)
        import torch

        shared = torch.tensor(values, dtype=torch.float64)
        self.dist.all_reduce(shared, self.dist.ReduceOp.MAX, group=self.group)
        return shared.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, by number."""
        if not self.dist:
            return [value]
        told: list[Any] = [None] * self.dist.get_world_size()
        self.dist.all_gather_object(told, value, group=self.group)
        return told

    def wait(self) -> None:
        """Until all are here."""
        if self.dist:
            self.dist.barrier(group=self.group)
