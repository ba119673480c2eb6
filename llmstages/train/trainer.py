"""Models, trainers and logs that all training stages share.

Every stage trains with a Trainer of the transformers family, so that one implementation of
progress, checkpoints and guards serves them all. The options and arguments are in arguments.py,
what is checked before in checks.py, the guards in callbacks.py, stopping and resuming in resume.py.
Torch is imported inside functions only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.malloc import kept_memory
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.train import distributed, resume, schedule
from llmstages.train.arguments import Optimization, training_arguments
from llmstages.train.batches import collate
from llmstages.train.callbacks import recorder
from llmstages.train.distributed import compute_device
from llmstages.train.evaluation import token_mean
from llmstages.train.isolation import require_isolation
from llmstages.train.movement import Movement
from llmstages.train.passes import row_order

# Entries of a Trainer's log that depend on the time, or that the record has already.
LEFT_OUT = re.compile(r"(?:\w+_)?(?:runtime|\w+_per_second|total_flos|num_tokens|epoch)|step_time")
NOT_FINITE = "not_finite"  # key of a log row: the names of its values that are not numbers


def load_model(
    artifact: Artifact, ctx: Context | None, kind: str = "causal", dtype: str = "float32"
) -> Any:
    """Load a model artifact.

    Args:
        artifact: a folder in the format of transformers.
        ctx: unused; part of the signature for stages that load models in their own way.
        kind: "causal" for a language model; "reward" for a sequence classifier with one label that
            is to be trained, so its head may be new; "trained_reward" for one with its head.
        dtype: a torch dtype by name; "auto" is the one that the weights were saved in.

    Raises:
        StageError: the folder holds no model, or not all weights of one: transformers would fill
            in random numbers for the others.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if not (artifact.path / "config.json").exists():
        raise StageError(
            f"{artifact.name} is not a model folder: there is no config.json in {artifact.path}"
        )
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    of_kind: Any = AutoModelForCausalLM
    if kind != "causal":
        of_kind, options["num_labels"] = AutoModelForSequenceClassification, 1
    model, loaded = of_kind.from_pretrained(artifact.path, **options)
    may_be_new = "score." if kind == "reward" else None
    missing = sorted(
        name for name in loaded["missing_keys"] if not (may_be_new and name.startswith(may_be_new))
    )
    if missing:
        raise StageError(
            f"{artifact.name} lacks {len(missing)} of the weights that its config.json asks for "
            f"({', '.join(missing[:3])}): it was saved without them, or as another kind of model"
        )
    # save_model() writes the weights in the dtype in which they came.
    model.saved_dtype = saved_dtype(artifact)
    return model


def saved_dtype(artifact: Artifact) -> str:
    """The torch dtype of a model's saved weights by name, as its config says."""
    config = json.loads((artifact.path / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def context_length(artifact: Artifact) -> int:
    """Positions that a model knows, in tokens; 0 if its config does not say."""
    config = json.loads((artifact.path / "config.json").read_text(encoding="utf-8"))
    return int(config.get("max_position_embeddings") or config.get("n_positions") or 0)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a tokenizer or model artifact; it pads on the left, as generation needs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    return tokenizer


def save_model(model: Any, tokenizer: Any, ctx: Context, trainer: Any = None) -> None:
    """Write weights and tokenizer into the artifact, in the dtype that load_model() found.

    Args:
        model: the trained model; it is in that dtype afterwards.
        tokenizer: its tokenizer.
        ctx: where to write.
        trainer: gathers weights that are sharded over processes (ZeRO-3, FSDP). All processes must
            then call this function.
    """
    import torch

    # Trainers switch the cache off. In a saved config that would make generation ten times slower.
    model.config.use_cache = True
    _set_end_tokens(model, tokenizer)
    state = {}
    if trainer is not None and distributed.sharding_of(trainer) in ("zero3", "fsdp"):
        state["state_dict"] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    # Only now may the other processes leave: all were needed to gather the weights.
    if not distributed.first_process():
        return
    dtype = getattr(torch, getattr(model, "saved_dtype", "float32"))
    if "state_dict" in state:
        state["state_dict"] = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in state["state_dict"].items()
        }
        model.config.dtype = dtype
    else:
        model.to(dtype)
    model.save_pretrained(ctx.out, **state)
    tokenizer.save_pretrained(ctx.out)


def _set_end_tokens(model: Any, tokenizer: Any) -> None:
    """Let other programs stop where the template ends a turn, also if that is not the eos token."""
    from llmstages.text import chat_format
    from llmstages.text.templates import template_of

    if not template_of(tokenizer) or not getattr(model, "generation_config", None):
        return
    end = chat_format.control_tokens(tokenizer).end
    if end is not None and end != tokenizer.eos_token_id:
        model.generation_config.eos_token_id = [end, tokenizer.eos_token_id]


def rows_dataset(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A datasets.Dataset of packed rows, with their numbers in the column ``row``."""
    import datasets

    return datasets.Dataset.from_list([{"row": number, **row} for number, row in enumerate(rows)])


def run_trainer(
    trainer: Any,
    config: Optimization,
    ctx: Context,
    tokens_per_step: float = 0.0,
    needs_gradient: bool = True,
) -> Any:
    """Train with progress, guards and checkpoints.

    Args:
        trainer: a Trainer that is ready to train.
        config: the options of the stage.
        ctx: where the step runs.
        tokens_per_step: tokens in one update, for the speed that is shown; 0 shows none.
        needs_gradient: false where all gradients may be 0, as in RL where all answers are equal.

    Returns:
        The recorder, with ``seconds`` and ``spikes.skipped`` (see callbacks.py).

    Raises:
        StageError: training changed no weight (movement.py), and what resume.train() raises.
    """
    from transformers import PrinterCallback

    distributed.check_world(trainer, ctx)
    watch = recorder(ctx, tokens_per_step, config.spike_threshold)
    watch.attach(trainer)
    schedule.count_first_update(trainer)
    movement = Movement(trainer)
    # It would print every log entry into the progress bar.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    try:
        with kept_memory(measured=True) if compute_device() == "cpu" else nullcontext():
            resume.train(trainer, config, ctx, watch)
    finally:
        watch.close()
    if watch.has_gradient or needs_gradient:
        movement.require(ctx.step, watch.has_gradient)
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
    **extra: Any,
) -> Any:
    """TRL's SFTTrainer on packed rows, ready to train.

    Args:
        config: the options of the stage.
        ctx: where the step runs.
        model: the model to train.
        tokenizer: its tokenizer.
        rows: rows as ``collate`` takes them.
        steps: number of updates.
        adapter: a peft config; None trains all weights.
        sharded: whether the stage can save weights that are sharded over processes.
        order: numbers of the rows of all updates in order; None: that of passes.py.
        held: rows to evaluate on.
        extra: further arguments of SFTConfig.
    """
    from transformers import Trainer

    # TRL exports its classes lazily, which pyright takes for private names.
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

    from llmstages.text import chat_format

    class PlainLossTrainer(SFTTrainer):
        """Without TRL's fused head (trl 1.16).

        It reads the weights of the output layer past peft's wrapper of trained tokens.
        """

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return Trainer.compute_loss(self, *args, **kwargs)

    has_new_tokens = adapter is not None and adapter.trainable_token_indices
    trainer_class = token_mean(PlainLossTrainer if has_new_tokens else SFTTrainer)
    dataset = rows_dataset(rows)
    if any(_holds_several(row) for row in rows):
        advice = "Train one dialogue per row (packing=false), or another model."
        require_isolation(model, ctx.step, advice)
    arguments = training_arguments(
        config,
        ctx,
        sharded,
        max_steps=steps,
        lr_scheduler_type="linear",
        **extra,
    )
    if order is None:
        order = row_order(len(rows), steps, config.batch_size, config.seed)
    return trainer_class(
        model=model,
        train_dataset=dataset.select(order),
        eval_dataset=rows_dataset(held) if held else None,
        processing_class=tokenizer,
        data_collator=partial(collate, pad=chat_format.padding_id(tokenizer)),
        peft_config=adapter,
        args=SFTConfig(
            **arguments,
            # The rows are tokenized and packed already, so TRL must leave them as they are.
            packing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
    )


def _holds_several(row: Mapping[str, Any]) -> bool:
    """Whether a row holds several documents, whose positions begin again."""
    return sum(position == 0 for position in row["position_ids"]) > 1


def write_log(trainer: Any, ctx: Context) -> list[dict[str, float]]:
    """Write log.jsonl from the trainer's history, without times; returns its rows."""
    rows = []
    for entry in trainer.state.log_history:
        row = _log_row(entry)
        # The last entry is a summary of the whole run.
        if len(row) > 1 and "train_loss" not in row:
            rows.append(row)
    if distributed.first_process():
        tables.write_lines(ctx.out / "log.jsonl", rows)
    return rows


def _log_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a log entry, some of which arrive as text.

    JSON has no NaN, so the names of values that are not finite stand in a list.
    """
    row: dict[str, Any] = {}
    not_finite = []
    for key, value in entry.items():
        if LEFT_OUT.fullmatch(key) or not isinstance(value, int | float | str):
            continue
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            row[key] = int(number) if key == "step" else number
        else:
            not_finite.append(key)
    if not_finite:
        row[NOT_FINITE] = sorted(not_finite)
    return row


def ends_of(
    rows: Sequence[Mapping[str, float]], key: str, share: float = 0.1
) -> tuple[float, float]:
    """Mean of the first and mean of the last values of a logged series.

    ``share`` of the values count for each mean. Returns (nan, nan) if the key was not logged.
    """
    values = [row[key] for row in rows if key in row]
    if not values:
        return math.nan, math.nan
    # Single values are noisy, so the ends of the curve are means.
    width = max(1, int(len(values) * share))
    return sum(values[:width]) / width, sum(values[-width:]) / width


def check_names(
    ctx: Context, field: str, names: Sequence[str], sources: Sequence[Artifact]
) -> None:
    """Refuse a config that names a step which is not an input: a typo would mean the default.

    Raises:
        StageError: names the field, the unknown step and the inputs.
    """
    known = [source.name for source in sources]
    for name in names:
        if name not in known:
            raise StageError(
                f"{ctx.step}.{field} names {name!r}, which is not one of its inputs "
                f"({', '.join(known) or 'none'})"
            )


def read_meta(row: Mapping[str, Any]) -> dict[str, Any]:
    """The meta column of a problem."""
    return json.loads(row.get("meta") or "{}")
