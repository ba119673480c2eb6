"""What all training stages share: arguments, log, rows. What is checked before is in gates.py, how
they are watched in watch.py, how they go on in resume.py.

Every stage trains with a Trainer of the transformers family, so one way serves them all. Torch is imported inside functions only.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option
from llmstages.data import tables
from llmstages.train import distributed, resume
from llmstages.train.callbacks import recorder

TIMES = ("runtime", "per_second", "step_time", "total_flos", "num_tokens", "epoch")


@dataclass(frozen=True)
class Optimization:
    """Fields every training stage has. Batches are counted in rows over all processes."""

    seed: int = option(0, "seed of weights, data order and dropout")
    learning_rate: float = option(1e-3, "peak learning rate of AdamW")
    batch_size: int = option(4, "rows in one update, over all processes", renamed_from="batch_rows")
    warmup_steps: int = option(20, "updates of linear warm-up", renamed_from="warmup")
    weight_decay: float = option(0.05, "AdamW weight decay")
    max_grad_norm: float = option(1.0, "largest gradient norm", renamed_from="clip")
    micro_batch_size: int = option(
        0,
        "rows each process computes at once; 0 = its whole part of the batch, else gradients accumulate",
        identity=False,
        renamed_from="micro_rows",
    )
    bf16: bool = option(False, "bfloat16 autocast; pays on GPUs, not on small CPU models")
    log_every: int = option(10, "updates between log lines; logged curves are means over them")
    spike_threshold: float = option(
        0.0,
        "updates whose loss or gradient norm stands out by so many standard deviations are skipped and counted; 0: none. "
        "6 suits batches of many rows; with a few, ordinary updates stand out as far",
        renamed_from="skip_spikes",
    )
    save_minutes: float = option(
        10.0, "minutes between checkpoints; 0: none by time", identity=False
    )
    save_every: int = option(0, "updates between checkpoints; 0: by time alone", identity=False)
    save_last: int = option(2, "checkpoints kept", identity=False)
    allow_failed_checks: list[str] = option(
        help="gates that may fail (gates.py), by name: allow=[rows_with_padding_inside]",
        factory=list,
        identity=False,
        renamed_from="allow",
    )
    trackers: list[str] = option(
        help="experiment trackers: trackio, wandb, tensorboard", factory=list, identity=False
    )

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "max_grad_norm", "log_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")


def training_arguments(
    config: Optimization, ctx: Context, sharded: bool = False, **more: Any
) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments and its TRL children. sharded: see spreading()."""
    import torch

    micro = config.micro_batch_size or config.batch_size // ctx.processes
    if not micro or config.batch_size % (micro * ctx.processes):
        raise StageError(
            f"{ctx.step}.batch_size={config.batch_size} cannot be shared by {ctx.processes} processes "
            f"in parts of {micro or 1} rows; choose a multiple of {max(1, micro) * ctx.processes}"
        )
    warmup, steps = config.warmup_steps, more.get("max_steps", 0)
    if steps and warmup > max(1, steps // 5):
        warmup = max(1, steps // 5)
        ctx.say(
            f"{ctx.step}: warm-up shortened from {config.warmup_steps} to {warmup} of {steps} updates, or the rate would never be reached"
        )
    if "tensorboard" in config.trackers:
        os.environ.setdefault(
            "TENSORBOARD_LOGGING_DIR", os.path.join("tensorboard", ctx.step)
        )  # its files carry times: not into the artifact
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(16, os.cpu_count() or 1)))
    return {
        "output_dir": str(ctx.work),
        "seed": config.seed,
        "data_seed": config.seed,
        "learning_rate": config.learning_rate,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // (micro * ctx.processes),
        "warmup_steps": warmup,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "adam_beta2": 0.95,
        "bf16": config.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": max(1, min(config.log_every, more.get("max_steps", 1000) // 10)),
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": list(config.trackers) or "none",
        "save_strategy": "no",
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        **spreading(ctx, sharded),
        **more,
    }


def spreading(ctx: Context, sharded: bool) -> dict[str, Any]:
    """Arguments for DeepSpeed or FSDP, where the launcher asks for them. sharded: the stage can save weights that lie spread over processes."""
    import torch

    told = {
        name: json.loads(os.environ.get(f"LLMSTAGES_{name.upper()}") or "{}")
        for name in ("deepspeed", "fsdp")
    }
    if not sharded and (
        told["fsdp"] or told["deepspeed"].get("zero_optimization", {}).get("stage") == 3
    ):
        raise StageError(
            f"step {ctx.step!r} works with its model between updates and cannot do so while the weights lie spread over processes; "
            "use launch=zero2 or launch=ddp for it"
        )
    if told["fsdp"] and not torch.cuda.is_available():
        raise StageError(
            f"step {ctx.step!r}: launch=fsdp needs GPUs. On a CPU accelerate quietly trains something else (DDP, or a copy in each process); "
            "use launch=ddp, zero2 or zero3"
        )
    return {
        "deepspeed": told["deepspeed"] or None,
        **({"fsdp": True, "fsdp_config": told["fsdp"]} if told["fsdp"] else {}),
    }


def compute_device() -> str:
    """Where this process computes: its own GPU, or the CPU."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def load_model(
    artifact: Artifact, ctx: Context, kind: str = "causal", dtype: str = "float32"
) -> Any:
    """A causal language model, or with kind="reward" a one-label classifier. dtype: "auto" takes the one it was saved in."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    loader = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    more = {"num_labels": 1} if kind == "reward" else {}
    if not (artifact.path / "config.json").exists():
        raise StageError(
            f"{artifact.name} is no model folder: {artifact.path} holds no config.json"
        )
    return loader.from_pretrained(artifact.path, dtype=dtype, **more)


def context_length(artifact: Artifact) -> int:
    """Positions a model knows, 0 where its config does not say."""
    config = json.loads((artifact.path / "config.json").read_text(encoding="utf-8"))
    return int(config.get("max_position_embeddings") or config.get("n_positions") or 0)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a tokenizer or model artifact."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    return tokenizer


def lora_adapter(rank: int, model: Any = None, tokens: Sequence[int] = ()) -> Any:
    """LoRA on all linear layers (Hu et al. 2021), twice the rank as alpha; None for rank 0. tokens: ids whose embeddings in ``model`` are trained too."""
    if not rank:
        return None
    from peft import LoraConfig

    tables = (
        {
            id(layer): layer
            for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        }
        if tokens
        else {}
    )
    tied = (
        tokens and model.get_input_embeddings().weight is model.get_output_embeddings().weight
    )  # peft then serves both by the first
    names = (
        [name.rpartition(".")[2] for name, layer in model.named_modules() if id(layer) in tables]
        if tokens
        else []
    )
    learning = {name: list(tokens) for name in (names[:1] if tied else names)} or None
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        trainable_token_indices=learning,
    )


def save_model(model: Any, tokenizer: Any, ctx: Context, trainer: Any = None) -> None:
    """Write weights and tokenizer; the cache stays on in the saved config, or generation would be ten times slower.

    trainer: gathers weights that lie spread over processes (ZeRO-3, FSDP); all processes must then be here.
    """
    from llmstages.text import chat_format
    from llmstages.text.templates import template_of

    model.config.use_cache = True
    end = chat_format.control(tokenizer).end if template_of(tokenizer) else None
    if end not in (None, tokenizer.eos_token_id) and getattr(
        model, "generation_config", None
    ):  # other programs stop at what stands there
        model.generation_config.eos_token_id = [end, tokenizer.eos_token_id]
    spread = trainer is not None and distributed.sharding_of(trainer) in ("zero3", "fsdp")
    whole = (
        {"state_dict": trainer.accelerator.get_state_dict(trainer.model_wrapped)} if spread else {}
    )
    if not distributed.first_process():
        return
    model.save_pretrained(ctx.out, **whole)
    tokenizer.save_pretrained(ctx.out)


def rows_dataset(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A datasets.Dataset of packed rows."""
    import datasets

    return datasets.Dataset.from_list([{"row": number, **row} for number, row in enumerate(rows)])


def collate(rows: Sequence[Mapping[str, Any]], pad: int = 0) -> dict[str, Any]:
    """Stack rows of lists or arrays; shorter ones are padded at their end, where the loss does not look. use_cache=False goes with the batch: it keeps packed documents apart, and stays out of the config."""
    import numpy as np
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    stacked = {}
    for key, fill in (("input_ids", pad), ("labels", -100), ("position_ids", None)):
        some = [np.asarray(row[key], np.int64) for row in rows]
        more = [
            np.arange(len(one), width)
            if fill is None
            else np.full(width - len(one), fill, np.int64)
            for one in some
        ]
        stacked[key] = np.stack(
            [
                np.concatenate(pair) if len(pair[1]) else pair[0]
                for pair in zip(some, more, strict=True)
            ]
        )
    return {key: torch.from_numpy(values) for key, values in stacked.items()} | {"use_cache": False}


def run_trainer(
    trainer: Any, config: Optimization, ctx: Context, tokens_per_step: float = 0.0
) -> Any:
    """Train with progress, guards and checkpoints; returns what watched (``seconds``, ``spikes.skipped``)."""
    from transformers import PrinterCallback

    distributed.check_world(trainer, ctx)
    watch = recorder(ctx, tokens_per_step, config.spike_threshold)
    watch.attach(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    try:
        resume.train(trainer, config, ctx, watch)
    finally:
        watch.close()
    return watch


def sft_trainer(
    config: Optimization,
    ctx: Context,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    steps: int,
    adapter: Any = None,
    sharded: bool = False,
    order: Sequence[int] | None = None,
    held: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> Any:
    """TRL's SFTTrainer on rows, ready to train. order: of all rows of all updates, else random; held: rows to evaluate on; more: arguments of SFTConfig."""
    from transformers import Trainer
    from trl import SFTConfig, SFTTrainer

    class Plain(SFTTrainer):
        """Without TRL's fused head, which reads the weights of the output layer past peft's wrapper of trained tokens (trl 1.16)."""

        def compute_loss(self, *rest: Any, **more: Any) -> Any:
            return Trainer.compute_loss(self, *rest, **more)

    data, how = (
        rows_dataset(rows),
        {"train_sampling_strategy": "random" if order is None else "sequential"},
    )
    kind = Plain if adapter is not None and adapter.trainable_token_indices else SFTTrainer
    return kind(
        model=model,
        train_dataset=data if order is None else data.select(order),
        eval_dataset=rows_dataset(held) if held else None,
        processing_class=tokenizer,
        data_collator=partial(collate, pad=tokenizer.pad_token_id),
        peft_config=adapter,
        args=SFTConfig(
            **training_arguments(
                config, ctx, sharded, max_steps=steps, lr_scheduler_type="linear", **how, **more
            ),
            packing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
    )


def write_log(trainer: Any, ctx: Context) -> list[dict[str, float]]:
    """log.jsonl from the trainer's history, without times; returns the rows."""
    rows = []
    for entry in trainer.state.log_history:
        row = {
            k: v
            for k, v in entry.items()
            if not any(t in k for t in TIMES) and isinstance(v, int | float | str)
        }
        row = {k: float(v) if k != "step" else int(v) for k, v in row.items() if _number(v)}
        if len(row) > 1 and "train_loss" not in row:
            rows.append(row)
    if distributed.first_process():
        tables.write_lines(ctx.out / "log.jsonl", rows)
    return rows


def _number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def ends_of(
    rows: Sequence[Mapping[str, float]], key: str, share: float = 0.1
) -> tuple[float, float]:
    """(mean of the first, mean of the last) ``share`` of a logged series; (nan, nan) when it was not logged."""
    values = [row[key] for row in rows if key in row]
    if not values:
        return math.nan, math.nan
    width = max(1, int(len(values) * share))
    return sum(values[:width]) / width, sum(values[-width:]) / width


def check_names(
    ctx: Context, field: str, names: Sequence[str], sources: Sequence[Artifact]
) -> None:
    """Refuse a config that names a step which feeds nothing in: a typo would silently mean the default."""
    known = [source.name for source in sources]
    for name in names:
        if name not in known:
            raise StageError(
                f"{ctx.step}.{field} names {name!r}, which is none of its inputs ({', '.join(known) or 'none'})"
            )


def read_meta(row: Mapping[str, Any]) -> dict[str, Any]:
    """The meta column of a problem."""
    return json.loads(row.get("meta") or "{}")
