"""The options that every training stage has, and the TrainingArguments that follow from them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option

ADAM_BETA2 = 0.95  # forgets old gradients sooner than the default 0.999: steadier in short runs
MAX_WARMUP_SHARE = 5  # at most a fifth of the updates warms up
MIN_LOG_LINES = 10  # that even a short run writes


@dataclass(frozen=True)
class Optimization:
    """Options of every training stage. Batches are counted in rows over all processes."""

    seed: int = option(0, "seed of weights, data order and dropout", ge=0, lt=2**32)
    learning_rate: float = option(1e-3, "peak learning rate of AdamW", gt=0)
    batch_size: int = option(
        4, "rows in one update, over all processes", ge=1, renamed_from="batch_rows"
    )
    warmup_steps: int = option(20, "updates of linear warm-up", ge=0, renamed_from="warmup")
    weight_decay: float = option(0.05, "AdamW weight decay", ge=0)
    max_grad_norm: float = option(1.0, "largest gradient norm", gt=0, renamed_from="clip")
    micro_batch_size: int = option(
        0,
        "rows that each process computes at once, with gradients accumulated; "
        "0 = its whole part of the batch",
        ge=0,
        identity=False,
        renamed_from="micro_rows",
    )
    bf16: bool = option(False, "bfloat16 autocast; pays on GPUs, not on small CPU models")
    log_every: int = option(
        10, "updates between log lines; logged curves are means over them", ge=1
    )
    spike_threshold: float = option(
        0.0,
        "updates whose loss or gradient norm stands out by so many standard deviations are "
        "skipped and counted; 0 = none. 6 suits batches of many rows; with a few rows, ordinary "
        "updates stand out as far",
        ge=0,
        renamed_from="skip_spikes",
    )
    save_minutes: float = option(
        10.0, "minutes between checkpoints; 0 = none by time", ge=0, identity=False
    )
    save_every: int = option(
        0, "updates between checkpoints; 0 = by time alone", ge=0, identity=False
    )
    save_last: int = option(2, "checkpoints kept", ge=1, identity=False)
    allow_failed_checks: list[str] = option(
        help="ids of checks that may fail, for example [padding_inside]; docs/sft.md lists them",
        factory=list,
        identity=False,
        renamed_from="allow",
    )
    trackers: list[str] = option(
        help="experiment trackers: trackio, wandb, tensorboard",
        factory=list,
        identity=False,
        needs={name: (name, "llmstages[trackers]") for name in ("trackio", "wandb", "tensorboard")},
    )


def training_arguments(
    config: Optimization, ctx: Context, sharded: bool = False, **extra: Any
) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments and its TRL subclasses.

    Args:
        config: the options of the stage.
        ctx: where the step runs, and on how many processes.
        sharded: see ``engine_arguments``.
        extra: further arguments, which win over those made here.

    Raises:
        StageError: the batch cannot be shared evenly by the processes.
    """
    import torch

    micro_batch = config.micro_batch_size or config.batch_size // ctx.processes
    if not micro_batch or config.batch_size % (micro_batch * ctx.processes):
        raise StageError(
            f"{ctx.step}.batch_size={config.batch_size} cannot be shared by {ctx.processes} "
            f"processes in parts of {micro_batch or 1} rows; choose a multiple of "
            f"{max(1, micro_batch) * ctx.processes}"
        )
    if "tensorboard" in config.trackers:
        # Its files contain times, so they must stay out of the artifact.
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(Path("tensorboard") / ctx.step))
    # torchrun sets OMP_NUM_THREADS, because several processes share the cores.
    threads = os.environ.get("OMP_NUM_THREADS") or min(16, os.cpu_count() or 1)
    torch.set_num_threads(int(threads))
    has_gpu = torch.cuda.is_available()
    # A short run logs more often, so that its curve has enough points.
    logging_steps = min(config.log_every, extra.get("max_steps", 1000) // MIN_LOG_LINES)
    return {
        "output_dir": str(ctx.work),
        "seed": config.seed,
        "data_seed": config.seed,
        "learning_rate": config.learning_rate,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": config.batch_size // (micro_batch * ctx.processes),
        "warmup_steps": _warmup_steps(config, ctx, extra.get("max_steps", 0)),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "adam_beta2": ADAM_BETA2,
        "bf16": config.bf16,
        "use_cpu": not has_gpu,
        "logging_steps": max(1, logging_steps),
        # A loss that is not finite must stop the step (callbacks.py), not be averaged away.
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": list(config.trackers) or "none",
        "save_strategy": "no",  # resume.py decides when to save
        "remove_unused_columns": False,
        # The rows come in the order in which they are trained (passes.py).
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": has_gpu,
        **engine_arguments(ctx, sharded),
        **extra,
    }


def _warmup_steps(config: Optimization, ctx: Context, steps: int) -> int:
    """The warm-up, shortened in short runs, where the peak rate would never be reached."""
    longest = steps // MAX_WARMUP_SHARE
    if not steps or config.warmup_steps <= longest:
        return config.warmup_steps
    ctx.say(
        f"{ctx.step}: warm-up shortened from {config.warmup_steps} to {longest} of {steps} "
        "updates, or the rate would never be reached"
    )
    return longest


def engine_arguments(ctx: Context, sharded: bool) -> dict[str, Any]:
    """Arguments for DeepSpeed or FSDP, if the launcher asks for one of them.

    Args:
        ctx: names the step in messages.
        sharded: whether the stage can save weights that are sharded over processes.

    Raises:
        StageError: the weights would be sharded, and the stage or the machine cannot do that.
    """
    import torch

    deepspeed = json.loads(os.environ.get("LLMSTAGES_DEEPSPEED") or "{}")
    fsdp = json.loads(os.environ.get("LLMSTAGES_FSDP") or "{}")
    zero_stage = deepspeed.get("zero_optimization", {}).get("stage")
    if not sharded and (fsdp or zero_stage == 3):
        raise StageError(
            f"step {ctx.step!r} works with its model between updates and cannot do so while the "
            "weights are sharded over processes; use launch=zero2 or launch=ddp for it"
        )
    if fsdp and not torch.cuda.is_available():
        raise StageError(
            f"step {ctx.step!r}: launch=fsdp needs GPUs. On a CPU accelerate silently trains "
            "something else (DDP, or a copy in each process); use launch=ddp, zero2 or zero3"
        )
    arguments: dict[str, Any] = {"deepspeed": deepspeed or None}
    if fsdp:
        arguments |= {"fsdp": True, "fsdp_config": fsdp}
    return arguments
