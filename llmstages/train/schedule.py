"""The learning rate of each update: a warm-up whose first update counts.

Shapes are those of transformers. Its warm-up is at a rate of 0 in the first update, which is
computed and changes nothing; in a run of one update nothing is trained at all. Here update ``i`` of
``n`` updates of warm-up has ``i / (n + 1)`` of the peak, and the first after it has all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rate = Callable[[int], float]  # number of an update, from 0 -> its share of the peak rate


def count_first_update(trainer: Any) -> None:
    """Give a Trainer, before it makes its scheduler, the warm-up described above."""
    create = trainer.create_scheduler

    def create_scheduler(num_training_steps: int, optimizer: Any = None) -> Any:
        is_new = trainer.lr_scheduler is None
        scheduler = create(num_training_steps, optimizer)
        warmup_steps = trainer.args.get_warmup_steps(num_training_steps)
        if is_new and warmup_steps:
            trainer.lr_scheduler = _with_warmup(scheduler, warmup_steps)
        return trainer.lr_scheduler

    trainer.create_scheduler = create_scheduler


def _with_warmup(scheduler: Any, warmup_steps: int) -> Any:
    from torch.optim.lr_scheduler import LambdaLR

    rates = [_warmed_up(rate, warmup_steps) for rate in scheduler.lr_lambdas]
    return LambdaLR(scheduler.optimizer, rates)


def _warmed_up(rate: Rate, warmup_steps: int) -> Rate:
    def warmed_up(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return rate(step)

    return warmed_up
