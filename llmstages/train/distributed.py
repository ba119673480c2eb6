"""What the processes of a training step tell each other; with one process it costs nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context

BACKEND_VARIABLE = "LLMSTAGES_LAUNCH"  # the runner sets it, see launch/config.py
BACKENDS = {"NO": "none", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp"}  # of accelerate


def requested_backend() -> str:
    """How the runner distributed this step (none, ddp, zero2, ...); "none" if it did not say."""
    return os.environ.get(BACKEND_VARIABLE, "none")


def compute_device() -> str:
    """Where this process computes: its own GPU, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def first_process() -> bool:
    """Whether this process writes the artifact; the others only compute."""
    return os.environ.get("RANK", "0") == "0"


def check_world(trainer: Any, ctx: Context) -> None:
    """Compare what the launcher gave with what was asked for.

    Several plausible commands train one process where two were asked for, or independent copies,
    and end with exit code 0.

    Raises:
        StageError: the number of processes or the backend differs, or one process has many GPUs.
    """
    gpus = trainer.args.n_gpu
    if gpus > 1:
        raise StageError(
            f"step {ctx.step!r} would use {gpus} GPUs in one process, which multiplies its batch; "
            f"choose launch=ddp launch.processes={gpus}, or show it one GPU: "
            "CUDA_VISIBLE_DEVICES=0"
        )
    processes = trainer.accelerator.num_processes
    backend = sharding_of(trainer)
    requested = os.environ.get(BACKEND_VARIABLE)
    if processes == ctx.processes and (not requested or backend == requested):
        return
    raise StageError(
        f"step {ctx.step!r} was to run as {requested or backend} on {ctx.processes} processes, "
        f"but accelerate started {backend} on {processes}; nothing was trained. Start it by "
        "`llmstages run launch=...`, not inside another launcher, and without ACCELERATE_* "
        "variables of your own"
    )


def sharding_of(trainer: Any) -> str:
    """How accelerate distributes a training: none, ddp, zero1 to zero3, or fsdp."""
    name: str = trainer.accelerator.distributed_type.name
    if name == "DEEPSPEED":
        return f"zero{trainer.accelerator.state.deepspeed_plugin.zero_stage}"
    return BACKENDS.get(name, name.lower())


class Processes:
    """Communication between the processes of a step, on the CPU, so that no GPU waits for it."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist: Any = None
        self._group: Any = None
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._dist = dist
            # A group of its own: the backend for gradients (NCCL) takes tensors on GPUs alone.
            self._group = dist.new_group(backend="gloo")
        # The first process decides, writes and speaks for all.
        self.first = self._dist is None or self._dist.get_rank() == 0

    def share(self, make: Callable[[], Any]) -> Any:
        """The value that the first process makes; an error there is raised in every process."""
        # An error is sent as well: the other processes would wait for a value for ever.
        value_and_error: list[Any] = [None, None]
        if self.first:
            try:
                value_and_error[0] = make()
            except Exception as error:  # raised again below, in every process
                value_and_error[1] = error
        if self._dist:
            self._dist.broadcast_object_list(value_and_error, src=0, group=self._group)
        value, error = value_and_error
        if error is not None:
            raise error
        return value

    def most(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        if not self._dist:
            return list(values)
        import torch

        # float64 holds losses and signal numbers without rounding.
        shared = torch.tensor(values, dtype=torch.float64)
        self._dist.all_reduce(shared, self._dist.ReduceOp.MAX, group=self._group)
        return shared.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank."""
        if not self._dist:
            return [value]
        values: list[Any] = [None] * self._dist.get_world_size()
        self._dist.all_gather_object(values, value, group=self._group)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self._dist:
            self._dist.barrier(group=self._group)
