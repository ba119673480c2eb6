"""What looks at every update of a training step: progress, and the guards that keep bad numbers out of the weights.

One callback for the whole Trainer family. A gradient or loss that is not finite stops training before the weights change, and
the message names the update and the rows of it. With ``spike_threshold`` an update whose loss or gradient norm stands out (more than
so many standard deviations over the mean of the last WINDOW updates; as in OLMo-core's SkipStepOptimizer) is left out and counted.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.train.distributed import Processes

WINDOW = 128  # updates that a spike is held against; none is skipped before half of them
NAMED = 8  # rows named in a message


class Fed:
    """Which rows each micro batch was made of: a collator that remembers. Rows without a number go by their beginning."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate, self.batches = collate, deque[list[Any]]()

    def __call__(self, rows: Sequence[Any]) -> Any:
        self.batches.append([_name(row) for row in rows])
        return self.collate(rows)


def _name(row: Any) -> Any:
    if isinstance(row, Mapping):
        if "row" in row:
            return int(row["row"])
        return next(
            (
                str(value)[:60]
                for key, value in row.items()
                if key in ("prompt", "input_ids", "chosen_ids")
            ),
            "?",
        )
    return str(row)[:60]


class Spikes:
    """Tells which losses and gradient norms stand out. What it remembers goes into checkpoints."""

    def __init__(self, deviations: float) -> None:
        self.deviations, self.skipped = deviations, 0
        self.seen: list[deque[float]] = [deque(maxlen=WINDOW), deque(maxlen=WINDOW)]

    def out(self, *values: float) -> bool:
        """Whether an update with this (loss, gradient norm) is to be skipped; only others are remembered."""
        skip = any(self._far(value, past) for value, past in zip(values, self.seen, strict=True))
        if skip:
            self.skipped += 1
        else:
            for value, past in zip(values, self.seen, strict=True):
                past.append(value)
        return skip

    def _far(self, value: float, past: deque[float]) -> bool:
        if len(past) < WINDOW // 2:
            return False
        mean = sum(past) / len(past)
        spread = math.sqrt(sum((one - mean) ** 2 for one in past) / (len(past) - 1))
        return value > mean + self.deviations * spread

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {"skipped": self.skipped, "seen": [list(past) for past in self.seen]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of ``state``."""
        self.skipped = state["skipped"]
        self.seen = [deque(past, maxlen=WINDOW) for past in state["seen"]]


class TrainingMonitor:
    """What a recorder does; ``recorder`` makes it a TrainerCallback."""

    seconds, shown = 0.0, None

    def __init__(self, ctx: Context, tokens_per_step: float, spike_threshold: float) -> None:
        self.ctx, self.tokens_per_step, self.spikes = ctx, tokens_per_step, Spikes(spike_threshold)

    def attach(self, trainer: Any) -> None:
        """See every micro batch and its loss."""
        plain, step, loader = (
            trainer.data_collator,
            trainer.training_step,
            trainer.get_eval_dataloader,
        )
        compute, clip = trainer.compute_loss, trainer.accelerator.clip_grad_norm_
        self.fed = trainer.data_collator = Fed(plain)
        sys.modules.setdefault(
            "lomo_optim", None
        )  # accelerate searches the whole path for this optimizer, twice an update; None: it is not there
        trainer.floating_point_ops = lambda inputs: (
            0.0
        )  # counted once, in speed.py; Trainer's own walks through the model at every update

        def training_step(model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            loss = step(model, inputs, *rest, **more)
            self.losses.append(loss.detach().float().reshape(()))
            return loss

        def clip_grad_norm_(*rest: Any, **more: Any) -> Any:
            self.norm = clip(*rest, **more)
            return self.norm

        def get_eval_dataloader(*rest: Any, **more: Any) -> Any:
            trainer.data_collator = plain
            try:
                return loader(*rest, **more)
            finally:
                trainer.data_collator = self.fed

        def compute_loss(model: Any, *rest: Any, **more: Any) -> Any:
            found = compute(model, *rest, **more)
            loss = found[0] if isinstance(found, tuple) else found
            if model.training and not math.isfinite(loss.item()):
                self._stop(
                    trainer.state.global_step + 1,
                    [loss.item()],
                    [self.fed.batches[len(self.losses)]],
                    alone=True,
                )
            return found

        trainer.training_step, trainer.get_eval_dataloader = training_step, get_eval_dataloader
        if (
            trainer.is_deepspeed_enabled
        ):  # its engine changes the weights within backward, so the loss must be looked at before
            trainer.compute_loss = compute_loss
        else:
            trainer.accelerator.clip_grad_norm_ = clip_grad_norm_

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.processes, self.losses, self.norm, self.fed.batches = Processes(), [], None, deque()
        self.first, self.started, self.note = state.global_step, time.perf_counter(), ""
        self.shown = self.ctx.progress(self.ctx.step, state.max_steps)
        self.advance = self.shown.__enter__()
        if state.global_step:
            self.advance(state.global_step, "")

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        import torch

        losses, self.losses = torch.stack(self.losses), []
        rows = [self.fed.batches.popleft() for _ in range(min(len(losses), len(self.fed.batches)))]
        norm = (
            losses.new_zeros(()) if self.norm is None else self.norm.to(losses)
        )  # gradients lie with DeepSpeed
        numbers = torch.stack([losses.sum(), norm]).tolist()  # the one place that waits for a GPU
        bad = not all(map(math.isfinite, numbers))
        *most, bad = self.processes.most(
            *((0.0, 0.0) if bad else numbers), bad
        )  # all stop, or none: a process alone would wait for ever
        if bad:
            self._stop(state.global_step + 1, losses.tolist(), rows)
        if self.spikes.deviations and self.spikes.out(*most):
            for p in model.parameters():
                p.grad = None  # an optimizer leaves a weight without gradient as it is
            self.ctx.say(
                f"{self.ctx.step}: update {state.global_step + 1} skipped, its loss or gradient stands out (loss {numbers[0]:.3g}; rows {_few(rows)})"
            )

    def _stop(
        self,
        update: int,
        losses: Sequence[float],
        rows: Sequence[Sequence[Any]],
        alone: bool = False,
    ) -> None:
        bad = [batch for loss, batch in zip(losses, rows, strict=False) if not math.isfinite(loss)]
        told = [(bad, rows)] if alone else self.processes.gather((bad, rows))
        guilty = [(rank, batch) for rank, (found, _) in enumerate(told) for batch in found]
        what = "loss" if guilty else "gradient"
        named = (
            "; ".join(
                f"{f'process {rank}: ' if len(told) > 1 else ''}{_few([batch])}"
                for rank, batch in guilty
            )
            if guilty
            else "; ".join(
                f"{f'process {rank}: ' if len(told) > 1 else ''}{_few(fed)}"
                for rank, (_, fed) in enumerate(told)
            )
        )
        raise StageError(
            f"step {self.ctx.step!r}: the {what} is not finite at update {update}; stopped before the weights changed. Rows of it: {named}. "
            f"Look at these rows, or lower {self.ctx.step}.learning_rate"
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        speed = (
            self.tokens_per_step
            * (state.global_step - self.first)
            / (time.perf_counter() - self.started)
            if self.tokens_per_step
            else 0
        )
        self.advance(1, self.note + (f", {speed / 1e3:.1f}k tok/s" if speed else ""))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        shown = {k: logs[k] for k in ("loss", "reward") if k in logs}
        self.note = ", ".join(f"{k} {float(v):.3f}" for k, v in shown.items()) or self.note

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.started
        if self.spikes.skipped:
            self.ctx.say(
                f"{self.ctx.step}: {self.spikes.skipped} updates were skipped as spikes (spike_threshold={self.spikes.deviations:g})"
            )

    def close(self) -> None:
        """End the progress bar, however training ended."""
        if self.shown:
            self.shown.__exit__(None, None, None)


def recorder(ctx: Context, tokens_per_step: float, spike_threshold: float = 0.0) -> Any:
    """The callback. Call ``attach(trainer)`` before training; ``seconds`` and ``spikes.skipped`` hold after it."""
    from transformers import TrainerCallback

    return type("Recorder", (TrainingMonitor, TrainerCallback), {})(
        ctx, tokens_per_step, spike_threshold
    )


def _few(rows: Sequence[Sequence[Any]]) -> str:
    all_of = [str(name) for batch in rows for name in batch]
    return ", ".join(all_of[:NAMED]) + (
        f" and {len(all_of) - NAMED} more" if len(all_of) > NAMED else ""
    )
