"""What looks at every update of a training step: the progress bar, and guards for the weights.

One callback serves the whole Trainer family. A gradient or loss that is not finite stops training
before the weights change, and the message names the update and its rows. With ``spike_threshold``
an update is skipped and counted if its loss or gradient norm exceeds the mean of the last WINDOW
updates, skipped or not, by more than so many standard deviations (as SkipStepOptimizer of OLMo-core
does). So a lasting change of level is skipped a few times only.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.malloc import check_kept
from llmstages.core.stage import Context
from llmstages.train.distributed import Processes

WINDOW = 128  # updates that a spike is compared with; none is skipped before half of them
NAMED_ROWS = 8  # rows named in a message
NAME_LENGTH = 60  # characters of a row that has no number
IDENTIFYING = ("prompt", "input_ids", "chosen_ids")  # columns that such a row is known by

Batch = list[Any]  # the names of the rows of a micro batch


class RowRecorder:
    """A collator that remembers which rows each micro batch was made of."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate
        self.batches = deque[Batch]()

    def __call__(self, rows: Sequence[Any]) -> Any:
        self.batches.append([_row_name(row) for row in rows])
        return self.collate(rows)


def _row_name(row: Any) -> Any:
    """The number of a row, or else the beginning of its content."""
    if not isinstance(row, Mapping):
        return str(row)[:NAME_LENGTH]
    if "row" in row:
        return int(row["row"])
    for key, value in row.items():
        if key in IDENTIFYING:
            return str(value)[:NAME_LENGTH]
    return "?"


class Spikes:
    """Decides which losses and gradient norms are spikes. Its memory is saved with checkpoints."""

    def __init__(self, deviations: float) -> None:
        self.deviations = deviations
        self.skipped = 0
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def is_spike(self, loss: float, norm: float) -> bool:
        """Whether an update is to be skipped."""
        is_spike = self._stands_out(loss, self._losses) or self._stands_out(norm, self._norms)
        # Spikes are remembered too. Else a new level would stay unknown and be skipped for ever.
        self._losses.append(loss)
        self._norms.append(norm)
        self.skipped += is_spike
        return is_spike

    def _stands_out(self, value: float, past: deque[float]) -> bool:
        if len(past) < WINDOW // 2:
            return False
        mean = sum(past) / len(past)
        variance = sum((earlier - mean) ** 2 for earlier in past) / (len(past) - 1)
        return value > mean + self.deviations * math.sqrt(variance)

    def state(self) -> dict[str, Any]:
        """The memory as JSON."""
        return {"skipped": self.skipped, "seen": [list(self._losses), list(self._norms)]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse of ``state``."""
        self.skipped = state["skipped"]
        losses, norms = state["seen"]
        self._losses = deque(losses, maxlen=WINDOW)
        self._norms = deque(norms, maxlen=WINDOW)


class TrainingMonitor:
    """The methods of the callback; ``recorder`` combines them with a TrainerCallback."""

    def __init__(self, ctx: Context, tokens_per_step: float, spike_threshold: float) -> None:
        self.ctx = ctx
        self.tokens_per_step = tokens_per_step
        self.spikes = Spikes(spike_threshold)
        self.seconds = 0.0  # of this training, without what was done before a resume
        self.updates = 0  # in these seconds
        self.has_gradient = False  # whether the gradient of any update was not 0
        self._tokens = 0.0  # computed since training began, where an update has no fixed number
        self._progress: Any = None  # an entered context manager
        self._losses: list[Any] = []  # of the micro batches since the last update
        self._norm: Any = None

    def attach(self, trainer: Any) -> None:
        """Make the trainer report every micro batch, its loss, and the gradient norm."""
        # accelerate searches the whole path for this optimizer, twice per update. None: not there.
        modules: dict[str, Any] = sys.modules
        modules.setdefault("lomo_optim", None)
        # The FLOPs are counted once, by the plugin (pretrain/throughput.py). The Trainer would walk
        # through the model at every update.
        trainer.floating_point_ops = lambda inputs: 0.0
        self._record_rows(trainer)
        self._record_losses(trainer)
        if trainer.is_deepspeed_enabled:
            # Its engine changes the weights within backward, so the loss is checked before.
            self._check_losses_at_once(trainer)
            self.has_gradient = True  # it keeps the gradients to itself
        else:
            self._record_norms(trainer)

    def _record_rows(self, trainer: Any) -> None:
        # Rows of an evaluation belong to no update, so they are collated without being recorded.
        collate, make_eval_loader = trainer.data_collator, trainer.get_eval_dataloader
        self._rows = trainer.data_collator = RowRecorder(collate)

        def get_eval_dataloader(*args: Any, **kwargs: Any) -> Any:
            trainer.data_collator = collate
            try:
                return make_eval_loader(*args, **kwargs)
            finally:
                trainer.data_collator = self._rows

        trainer.get_eval_dataloader = get_eval_dataloader

    def _record_losses(self, trainer: Any) -> None:
        step = trainer.training_step

        def training_step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = step(model, inputs, *args, **kwargs)
            self._tokens += self.ctx.processes * _size_of(inputs)
            self._losses.append(loss.detach().float().reshape(()))
            return loss

        trainer.training_step = training_step

    def _record_norms(self, trainer: Any) -> None:
        clip = trainer.accelerator.clip_grad_norm_

        def clip_grad_norm_(*args: Any, **kwargs: Any) -> Any:
            self._norm = clip(*args, **kwargs)
            return self._norm

        trainer.accelerator.clip_grad_norm_ = clip_grad_norm_

    def _check_losses_at_once(self, trainer: Any) -> None:
        compute = trainer.compute_loss

        def compute_loss(model: Any, *args: Any, **kwargs: Any) -> Any:
            result = compute(model, *args, **kwargs)
            loss = result[0] if isinstance(result, tuple) else result
            if model.training and not math.isfinite(loss.item()):
                batch = self._rows.batches[len(self._losses)]
                # The other processes do not know of it yet, so they cannot be asked for their rows.
                self._stop(trainer.state.global_step + 1, [([batch], [batch])])
            return result

        trainer.compute_loss = compute_loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._processes = Processes()
        self._losses = []
        self._norm = None
        self._rows.batches = deque()
        self._first_step = state.global_step
        self._tokens = 0.0
        self._first_token = getattr(state, "num_input_tokens_seen", 0)
        self._started = time.perf_counter()
        self._note = ""
        self._progress = self.ctx.progress(self.ctx.step, state.max_steps)
        self._advance = self._progress.__enter__()
        # A resumed training continues its progress bar as well.
        if state.global_step:
            self._advance(state.global_step, "")

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        import torch

        losses, self._losses = torch.stack(self._losses), []
        batches = self._take_batches(len(losses))
        if self._norm is None:
            norm = losses.new_zeros(())  # DeepSpeed keeps the gradients to itself
        else:
            norm = self._norm.to(losses)
        # The one place that waits for a GPU.
        loss_sum, norm_value = torch.stack([losses.sum(), norm]).tolist()
        bad = not (math.isfinite(loss_sum) and math.isfinite(norm_value))
        self.has_gradient = self.has_gradient or norm_value > 0
        # All processes stop, or none: a process alone would wait for the others for ever.
        numbers = (0.0, 0.0) if bad else (loss_sum, norm_value)
        max_loss, max_norm, any_bad = self._processes.most(*numbers, bad)
        if any_bad:
            bad_batches = [
                batch
                for loss, batch in zip(losses.tolist(), batches, strict=False)
                if not math.isfinite(loss)
            ]
            everywhere = self._processes.gather((bad_batches, batches))
            self._stop(state.global_step + 1, everywhere)
        if self.spikes.deviations and self.spikes.is_spike(max_loss, max_norm):
            for parameter in model.parameters():
                parameter.grad = None  # an optimizer leaves a weight without gradient as it is
            self.ctx.say(
                f"{self.ctx.step}: update {state.global_step + 1} skipped, its loss or gradient "
                f"stands out (loss {loss_sum:.3g}; rows {_shortened(batches)})"
            )

    def _take_batches(self, count: int) -> list[Batch]:
        """The oldest recorded micro batches; the loader may have made more of them already."""
        available = min(count, len(self._rows.batches))
        return [self._rows.batches.popleft() for _ in range(available)]

    def _stop(self, update: int, processes: Sequence[tuple[list[Batch], list[Batch]]]) -> None:
        """Raise StageError.

        processes: for each process the micro batches whose loss is not finite, and all of them.
        """
        losses, all_rows = [], []
        for rank, (bad_batches, batches) in enumerate(processes):
            prefix = f"process {rank}: " if len(processes) > 1 else ""
            losses += [f"{prefix}{_shortened([batch])}" for batch in bad_batches]
            all_rows.append(f"{prefix}{_shortened(batches)}")
        # With finite losses it is the gradient, to which all rows of the update contribute.
        quantity = "loss" if losses else "gradient"
        raise StageError(
            f"step {self.ctx.step!r}: the {quantity} is not finite at update {update}; stopped "
            f"before the weights changed. Rows of it: {'; '.join(losses or all_rows)}. "
            f"Look at these rows, or lower {self.ctx.step}.learning_rate"
        )

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_kept()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        check_kept()
        if state.global_step >= state.max_steps:
            control.should_log = True  # or the updates since the last line would be in no log
        seconds = time.perf_counter() - self._started
        speed = self._tokens_computed(state) / max(seconds, 1e-9)
        notes = [self._note, format_speed(speed) if speed else ""]
        self._advance(1, ", ".join(note for note in notes if note))

    def _tokens_computed(self, state: Any) -> float:
        """Tokens since training began, on all processes together."""
        if self.tokens_per_step:
            return self.tokens_per_step * (state.global_step - self._first_step)
        # RL makes its tokens within an update, so that only its trainer can count them.
        return self._tokens or state.num_input_tokens_seen - self._first_token

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        shown = [f"{key} {float(logs[key]):.3f}" for key in ("loss", "reward") if key in logs]
        if shown:
            self._note = ", ".join(shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self._started
        self.updates = state.global_step - self._first_step
        if self.spikes.skipped:
            self.ctx.say(
                f"{self.ctx.step}: {self.spikes.skipped} updates were skipped as spikes "
                f"(spike_threshold={self.spikes.deviations:g})"
            )

    def close(self) -> None:
        """End the progress bar, however training ended."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)


def _size_of(inputs: Any) -> int:
    """Tokens of a micro batch, padding included; 0 if it does not hold them yet."""
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
        return 0
    return inputs["input_ids"].numel()


def format_speed(tokens_per_second: float) -> str:
    """A speed for people: ``7.3 tok/s``, ``850 tok/s``, ``1.25k tok/s``, ``3.1M tok/s``."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        # From 999.5 of the unit below, three digits would round to 1000.
        if tokens_per_second >= 0.9995 * unit:
            return f"{tokens_per_second / unit:.3g}{name} tok/s"
    return f"{tokens_per_second:.3g} tok/s"


def recorder(ctx: Context, tokens_per_step: float, spike_threshold: float = 0.0) -> Any:
    """The callback of a training.

    Call ``attach(trainer)`` before training. ``seconds`` and ``spikes.skipped`` are valid after it.
    """
    from transformers import TrainerCallback

    class Recorder(TrainingMonitor, TrainerCallback):
        """Transformers is imported as late as here, so the class is made here."""

    return Recorder(ctx, tokens_per_step, spike_threshold)


def _shortened(batches: Sequence[Batch]) -> str:
    """The first rows of the micro batches, and how many more there are."""
    names = [str(name) for batch in batches for name in batch]
    listed = ", ".join(names[:NAMED_ROWS])
    if len(names) > NAMED_ROWS:
        return f"{listed} and {len(names) - NAMED_ROWS} more"
    return listed
