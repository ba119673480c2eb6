"""How fast a run trained, and which share of what the device can do that was (MFU). Times are metrics of the record, never files."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

# Name of the device (lower case, all words must occur; the first row that fits counts) -> dense bfloat16 FLOP/s by its data sheet.
PEAKS = (
    ("gb200", 2.5e15),
    ("b200", 2.25e15),
    ("h200 nvl", 836e12),
    ("h200", 989e12),
    ("h100 nvl", 835e12),
    ("h100 pcie", 756e12),
    ("h100", 989e12),
    ("a100", 312e12),
    ("l40s", 362e12),
    ("l40", 181e12),
    ("l4", 121e12),
    ("a6000", 154.8e12),
    ("a40", 149.7e12),
    ("a30", 165e12),
    ("a10g", 70e12),
    ("a10", 125e12),
    ("rtx 5090", 209.5e12),
    ("rtx 4090", 165.2e12),
    ("rtx 3090", 71e12),
    ("mi325x", 1307e12),
    ("mi300x", 1307e12),
    ("mi250x", 383e12),
)


clock = time.perf_counter  # of all times here, in seconds


@cache
def peak(bf16: bool) -> tuple[float, str]:
    """(FLOP/s of this process's device, where the figure is from): the data sheet of a known GPU (always that of bfloat16),
    else what a square matrix product of the type that is trained in reaches within a quarter of a second, once a process."""
    import torch

    gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if gpu else "CPU"
    if gpu and (known := data_sheet(name)):
        return known, f"data sheet of {name}"
    size, device = (8192, "cuda") if gpu else (1024, "cpu")
    a = torch.ones(size, size, dtype=torch.bfloat16 if bf16 else torch.float32, device=device)
    best, began = float("inf"), clock()
    while best == float("inf") or clock() - began < 0.25:
        start = clock()
        a @ a
        _wait()
        best = min(best, clock() - start)
    return 2 * size**3 / best, f"matrix products on this {name}"


def data_sheet(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by its name, or None."""
    words = name.lower()
    return next((value for key, value in PEAKS if all(word in words for word in key.split())), None)


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def flops_per_token(model: Any, row: int) -> float:
    """FLOPs of training on one token: 6 for each weight that multiplies (layers and head, not the look-up of embeddings)
    and 12 * layers * width * row for attention over whole rows (Chowdhery et al. 2022, appendix B)."""
    import torch

    looked_up = {
        id(p): p.numel()
        for m in model.modules()
        if isinstance(m, torch.nn.Embedding)
        for p in m.parameters()
    }
    head = model.get_output_embeddings()
    tied = sum(
        p.numel() for p in head.parameters() if id(p) in looked_up
    )  # counted once, as the head
    weights = sum(p.numel() for p in model.parameters()) - sum(looked_up.values()) + tied
    shape = model.config
    return 6.0 * weights + 12.0 * shape.num_hidden_layers * shape.hidden_size * row


def stopwatch() -> Any:
    """A TrainerCallback that measures the training itself: not evaluation, samples and checkpoints, and of more than ten
    updates not the first, in which memory is found and a model compiled. ``updates`` and ``seconds`` are what it saw."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        updates, seconds, since, skipped = 0, 0.0, None, False

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.since = clock() if self.since is None else self.since

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.updates += 1
            first = not self.skipped and state.max_steps > 10
            if (
                first
                or control.should_evaluate
                or control.should_save
                or state.global_step == state.max_steps
            ):
                self.pause()
            if first:
                self.updates, self.seconds, self.skipped = 0, 0.0, True

        def pause(self) -> None:
            """Stop until the next update begins; called by whatever is about to take time of its own."""
            if self.since is not None:
                _wait()
                self.seconds += clock() - self.since
                self.since = None

    return Stopwatch()


def figures(watch: Any, model: Any, config: Any, processes: int) -> dict[str, float]:
    """tokens_per_second over all processes, and mfu: the share of the devices' peak that the model's own FLOPs are."""
    speed = (
        watch.updates * config.batch_size * config.max_length / watch.seconds
        if watch.seconds
        else 0.0
    )
    return {
        "tokens_per_second": speed,
        "mfu": speed
        * flops_per_token(model, config.max_length)
        / (peak(config.bf16)[0] * processes),
    }
