"""How fast a run trained, and its share of what the device can do (MFU).

Times are metrics of the record and never written to files, so that equal runs give equal files.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

# Words in the name of a device (lower case) -> dense bfloat16 FLOP/s by its data sheet.
# The first row whose words all occur counts, so special names stand before general ones.
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
# Types of models whose FLOPs the formula counts within 2 % (tests/plugins/pretrain).
DENSE = frozenset(
    "cohere gemma gemma2 glm gpt2 gpt_neox granite llama mistral olmo olmo2 phi3 qwen2 qwen3 "
    "smollm3 stablelm starcoder2".split()
)
# All times here, in seconds; benchmarks measure CPU time by another clock.
clock = time.perf_counter
MEASURE_SECONDS = 0.25


@cache
def peak(bf16: bool) -> tuple[float, str]:
    """FLOP/s that this process's device can reach, and where the figure is from.

    For a known GPU it is that of the data sheet, always for bfloat16. Otherwise it is measured once
    per process, on a square matrix product in the type that is trained in.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if has_gpu else "CPU"
    if has_gpu:
        known = data_sheet(name)
        if known:
            return known, f"data sheet of {name}"
    size, device = (8192, "cuda") if has_gpu else (1024, "cpu")
    dtype = torch.bfloat16 if bf16 else torch.float32
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    best, began = float("inf"), clock()
    # At least one product, however long it takes.
    while best == float("inf") or clock() - began < MEASURE_SECONDS:
        start = clock()
        torch.matmul(matrix, matrix)
        _wait_for_gpu()
        best = min(best, clock() - start)
    return 2 * size**3 / best, f"matrix products on this {name}"


def data_sheet(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a GPU by its name, or None."""
    for words, flops in PEAKS:
        if all(word in name.lower() for word in words.split()):
            return flops
    return None


def _wait_for_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def flops_per_token(model: Any, row_tokens: int) -> float | None:
    """FLOPs of training on one token (Chowdhery et al. 2022, appendix B).

    6 for each weight that multiplies: layers and head, but not the look-up of embeddings. And
    12 * layers * width of all heads * row_tokens for attention over whole rows. None for
    architectures that are not dense Transformers (DENSE): of the weights of experts only some
    multiply a token, and other layers are no attention.
    """
    import torch

    shape = model.config
    if shape.model_type not in DENSE:
        return None
    looked_up: dict[int, int] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            for weight in module.parameters():
                looked_up[id(weight)] = weight.numel()
    # Tied embeddings multiply as well, as the head.
    head = model.get_output_embeddings()
    tied = sum(weight.numel() for weight in head.parameters() if id(weight) in looked_up)
    every = sum(weight.numel() for weight in model.parameters())
    multiplying = every - sum(looked_up.values()) + tied
    heads = shape.num_attention_heads
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // heads
    return 6.0 * multiplying + 12.0 * shape.num_hidden_layers * heads * head_size * row_tokens


def stopwatch() -> Any:
    """A TrainerCallback that measures the training itself.

    It leaves out evaluation, samples and checkpoints. In a run of more than ten updates it leaves
    out the first, in which memory is allocated and a model compiled. ``updates`` and ``seconds``
    are what it measured.
    """
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        updates = 0
        seconds = 0.0
        since: float | None = None
        skipped_first = False

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.since is None:
                self.since = clock()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.updates += 1
            is_first = not self.skipped_first and state.max_steps > 10
            is_last = state.global_step == state.max_steps
            interrupted = control.should_evaluate or control.should_save
            if is_first or is_last or interrupted:
                self.pause()
            if is_first:
                self.updates = 0
                self.seconds = 0.0
                self.skipped_first = True

        def pause(self) -> None:
            """Stop until the next update begins; called by whatever takes time of its own."""
            if self.since is not None:
                _wait_for_gpu()
                self.seconds += clock() - self.since
                self.since = None

    return Stopwatch()


def speed_metrics(watch: Any, model: Any, config: Any, processes: int) -> dict[str, float]:
    """Metrics of speed.

    Returns:
        tokens_per_second over all processes, and mfu: the share of the devices' peak that the
        model's own FLOPs are, where these are known.
    """
    speed = 0.0
    if watch.seconds:
        speed = watch.updates * config.batch_size * config.max_length / watch.seconds
    metrics = {"tokens_per_second": speed}
    flops = flops_per_token(model, config.max_length)
    if flops is not None:
        device_peak, _ = peak(config.bf16)
        metrics["mfu"] = speed * flops / (device_peak * processes)
    return metrics
