"""The model that is trained: a fresh one by transformers' name of its architecture, and how it computes on this machine.

How (attention, compile, liger, gradient_checkpointing) changes speed and memory, not what is learnt; what this machine
has not got is refused before anything is read.
"""

from __future__ import annotations

import math
import os
import shutil
from importlib.util import find_spec
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.plugins.pretrain import copy_friendly


def fresh(config: Any, tokenizer: Any) -> Any:
    """A model of random weights. config: a settled CausalLMConfig (dial.py)."""
    from transformers import AutoConfig, AutoModelForCausalLM

    friendly = config.init == "copy_friendly"
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
        "attention_bias": friendly,
        "initializer_range": 1 / math.sqrt(config.hidden_size) if friendly else 0.02,
    }
    if config.architecture == "gpt2":
        shape |= {
            "n_inner": config.intermediate_size,
            "n_positions": config.max_position_embeddings,
        }
    if config.hidden_size % config.num_attention_heads or config.num_attention_heads % (
        config.num_key_value_heads or config.num_attention_heads
    ):
        raise StageError(
            f"pretrain: hidden_size={config.hidden_size} must be a multiple of num_attention_heads={config.num_attention_heads}, and that one of num_key_value_heads={config.num_key_value_heads}"
        )
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.architecture, **shape))
    except (ValueError, KeyError) as error:
        raise StageError(
            f"pretrain.architecture={config.architecture}: {str(error).splitlines()[0][:200]}. Try llama, qwen2 or gpt2."
        ) from error
    if friendly:
        if not hasattr(model, "model") or not hasattr(model.model.layers[0], "self_attn"):
            raise StageError(
                f"pretrain.init=copy_friendly needs a llama-like model, not {config.architecture}; use pretrain.init=plain"
            )
        if config.num_key_value_heads not in (0, config.num_attention_heads):
            raise StageError(
                f"pretrain.init=copy_friendly needs as many key-value heads as heads, not {config.num_key_value_heads}; use pretrain.init=plain"
            )
        copy_friendly.apply(model)
    return model


def check_machine(config: Any, ctx: Context) -> None:
    """Refuse what this machine has not got, naming the setting, the reason and the way out."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    gpu, step = torch.cuda.is_available(), ctx.step
    if config.attention == "flash_attention_2":
        if not is_flash_attn_2_available():
            raise StageError(
                f"{step}.attention=flash_attention_2 needs an NVIDIA GPU and the package flash-attn; this machine has "
                f"{'the GPU' if gpu else 'no GPU'}. pip install flash-attn, or {step}.attention=sdpa"
            )
        if not config.bf16:
            raise StageError(
                f"{step}.attention=flash_attention_2 computes in bfloat16 only; set {step}.bf16=true or {step}.attention=sdpa"
            )
    if config.liger:
        if not gpu or find_spec("liger_kernel") is None:
            raise StageError(
                f"{step}.liger=true needs a GPU and the package liger-kernel, which this machine has not got; "
                f"pip install liger-kernel on a GPU machine, or {step}.liger=false"
            )
        if config.z_loss:
            raise StageError(
                f"{step}.liger=true never holds the logits that {step}.z_loss is computed from; choose one of them"
            )
    if config.compile:
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
        if (
            gpu
            and find_spec("triton") is None
            or not gpu
            and not (compiler and shutil.which(compiler))
        ):
            raise StageError(
                f"{step}.compile=true needs {'the package triton' if gpu else 'a C++ compiler (g++ or clang++, or CXX)'}, which this "
                f"machine has not got; install it, or {step}.compile=false"
            )
    if config.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise StageError(
            f"{step}.optimizer=muon needs torch 2.9 or later, this is {torch.__version__}; use {step}.optimizer=adamw"
        )


def prepare(model: Any, config: Any, ctx: Context) -> None:
    """Choose how attention is computed, and whether activations can be recomputed."""
    if config.attention != "sdpa":  # the default of every model that knows it
        try:
            model.set_attn_implementation(config.attention)
        except ValueError as error:
            raise StageError(
                f"{ctx.step}.attention={config.attention}: {str(error).splitlines()[0][:200]} Use {ctx.step}.attention=sdpa"
            ) from error
    if config.gradient_checkpointing and not getattr(
        model, "supports_gradient_checkpointing", False
    ):
        raise StageError(
            f"{ctx.step}.gradient_checkpointing=true: {type(model).__name__} cannot recompute its activations; set it to false"
        )
