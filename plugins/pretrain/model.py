"""The model that is trained: its shape and first weights, and how it computes on this machine.

Attention, compile, liger and gradient_checkpointing change speed and memory, not what is learned.
What this machine does not have is refused before anything is read.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from importlib.util import find_spec
from typing import Any

from llmstages.core.errors import StageError, first_line
from llmstages.core.stage import Context
from llmstages.cost.model import Model
from llmstages.plugins.pretrain import copy_friendly

SHOWN_CHARACTERS = 200  # of a message of transformers
# What the configs of transformers call the shares of activations that are dropped.
DROPOUT = re.compile("dropout|pdrop")


def fresh(config: Any, tokenizer: Any) -> Any:
    """A model with random weights.

    Args:
        config: a resolved CausalLMConfig (depth_scaling.py).

    Raises:
        StageError: an unknown architecture, heads that do not divide the width, or an
            initialization that does not fit the architecture.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    _check_heads(config)
    shape = _model_config(config, tokenizer)
    try:
        defaults = AutoConfig.for_model(config.architecture).to_dict()
        dropouts = [name for name in defaults if DROPOUT.search(name)]
        shape |= dict.fromkeys(dropouts, config.dropout)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.architecture, **shape))
    except (ValueError, KeyError) as error:
        problem = first_line(error)[:SHOWN_CHARACTERS]
        raise StageError(
            f"pretrain.architecture={config.architecture}: {problem}. Try llama, qwen2 or gpt2."
        ) from error
    if config.init == "copy_friendly":
        _check_copy_friendly(model, config)
        copy_friendly.apply(model)
    return model


def _model_config(config: Any, tokenizer: Any) -> dict[str, Any]:
    """Arguments of transformers' config. Architectures ignore those that they do not know."""
    is_copy_friendly = config.init == "copy_friendly"
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads or config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "attention_bias": is_copy_friendly,
        "initializer_range": 1 / math.sqrt(config.hidden_size) if is_copy_friendly else 0.02,
    }
    if config.architecture == "gpt2":
        shape["n_inner"] = config.intermediate_size
        shape["n_positions"] = config.max_position_embeddings
    return shape


def model_sizes(config: Any, vocab_size: int) -> Model:
    """The sizes of a new model, for estimates of its memory and time.

    Args:
        config: a resolved CausalLMConfig (depth_scaling.py).
    """
    return Model(
        config.architecture,
        vocab_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        config.num_key_value_heads or 0,
        # Rotary embeddings are computed; only GPT-2 has weights for positions.
        positions=config.max_position_embeddings if config.architecture == "gpt2" else 0,
        bias=config.init == "copy_friendly",
    )


def _check_heads(config: Any) -> None:
    heads = config.num_attention_heads
    key_value_heads = config.num_key_value_heads or heads
    if config.hidden_size % heads or heads % key_value_heads:
        raise StageError(
            f"pretrain: hidden_size={config.hidden_size} must be a multiple of "
            f"num_attention_heads={heads}, and that a multiple of "
            f"num_key_value_heads={key_value_heads}"
        )


def _check_copy_friendly(model: Any, config: Any) -> None:
    if not hasattr(model, "model") or not hasattr(model.model.layers[0], "self_attn"):
        raise StageError(
            f"pretrain.init=copy_friendly needs a model like llama, not {config.architecture}; "
            "use pretrain.init=plain"
        )
    if config.num_key_value_heads not in (None, config.num_attention_heads):
        raise StageError(
            "pretrain.init=copy_friendly needs as many key-value heads as heads, not "
            f"{config.num_key_value_heads}; use pretrain.init=plain"
        )


def check_machine(config: Any, ctx: Context) -> None:
    """Refuse settings that need what this machine does not have.

    Raises:
        StageError: names the setting, what is missing, and how to install or avoid it.
    """
    import torch

    _check_flash_attention(config, ctx.step)
    if config.liger:
        _check_liger(config, ctx.step)
    if config.compile:
        _check_compiler(ctx.step)
    if config.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise StageError(
            f"{ctx.step}.optimizer=muon needs torch 2.9 or later, this is {torch.__version__}; "
            f"use {ctx.step}.optimizer=adamw"
        )


def _check_flash_attention(config: Any, step: str) -> None:
    import torch
    from transformers.utils.import_utils import is_flash_attn_2_available

    if config.attention != "flash_attention_2":
        return
    if not is_flash_attn_2_available():
        gpu = "the GPU" if torch.cuda.is_available() else "no GPU"
        raise StageError(
            f"{step}.attention=flash_attention_2 needs an NVIDIA GPU and the package flash-attn; "
            f"this machine has {gpu}. pip install flash-attn, or {step}.attention=sdpa"
        )
    if not config.bf16:
        raise StageError(
            f"{step}.attention=flash_attention_2 computes in bfloat16 only; "
            f"set {step}.bf16=true or {step}.attention=sdpa"
        )


def _check_liger(config: Any, step: str) -> None:
    import torch

    if not torch.cuda.is_available() or find_spec("liger_kernel") is None:
        raise StageError(
            f"{step}.liger=true needs a GPU and the package liger-kernel, which this machine does "
            f"not have; pip install liger-kernel on a GPU machine, or {step}.liger=false"
        )
    if config.z_loss:
        raise StageError(
            f"{step}.liger=true never holds the logits that {step}.z_loss is computed from; "
            "choose one of them"
        )


def _check_compiler(step: str) -> None:
    """torch.compile needs triton on a GPU, and a C++ compiler on a CPU."""
    import torch

    if torch.cuda.is_available():
        needed = "the package triton"
        is_there = find_spec("triton") is not None
    else:
        needed = "a C++ compiler (g++ or clang++, or CXX)"
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
        is_there = bool(compiler and shutil.which(compiler))
    if not is_there:
        raise StageError(
            f"{step}.compile=true needs {needed}, which this machine does not have; "
            f"install it, or {step}.compile=false"
        )


def prepare(model: Any, config: Any, ctx: Context) -> None:
    """Choose how attention is computed, and check that activations can be recomputed.

    Raises:
        StageError: the model does not know the attention, or cannot recompute.
    """
    # sdpa is the default of every model that knows it.
    if config.attention != "sdpa":
        try:
            model.set_attn_implementation(config.attention)
        except ValueError as error:
            problem = first_line(error)[:SHOWN_CHARACTERS]
            raise StageError(
                f"{ctx.step}.attention={config.attention}: {problem} Use {ctx.step}.attention=sdpa"
            ) from error
    can_recompute = getattr(model, "supports_gradient_checkpointing", False)
    if config.gradient_checkpointing and not can_recompute:
        raise StageError(
            f"{ctx.step}.gradient_checkpointing=true: {type(model).__name__} cannot recompute its "
            "activations; set it to false"
        )


def in_one_row(config: Any) -> bool:
    """Whether the rows of a batch stand one behind the other (batches.collate)."""
    return config.attention == "flash_attention_2"


def stop_at_document_end(model: Any, tokenizer: Any) -> None:
    """Let other programs stop where a document ends, as a base model has learned to."""
    from llmstages.text import chat_format

    stops = (tokenizer.eos_token_id, chat_format.document_end(tokenizer))
    known = [stop for stop in dict.fromkeys(stops) if stop is not None]
    if known:
        model.generation_config.eos_token_id = known
