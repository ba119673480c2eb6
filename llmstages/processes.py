"""What the processes that share a training step tell each other. With one process, all of it is at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Processes:
    """What the processes of a step tell each other, on the CPU, so that no GPU has to wait for it."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.dist = dist if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 else None
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
