"""A GGUF file as an ordinary Hugging Face folder: config, safetensors, tokenizer, chat template.

transformers reads the file (``from_pretrained(gguf_file=...)``), but what it gives cannot be saved,
and it leaves out without a message what its table of keys does not know: attention biases of llama
and the rope scaling of Llama 3 are among them. So the configuration is completed from the header
first, and afterwards every weight is compared with the file. What cannot be kept is refused by
name. Left out on purpose: training on quantized weights; they are dequantized once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmstages.convert import gguf_tokenizer
from llmstages.convert.gguf_header import ROPE_FACTORS, Header, gguf_facts, read_header
from llmstages.convert.gguf_weights import (
    KNOWN,
    Llama3Rope,
    hf_names,
    require_gguf,
    rotary_heads,
    to_halves,
)
from llmstages.core.errors import StageError, first_line

__all__ = ["gguf_facts", "read_gguf"]

FLOAT_TYPES = {0: "float32", 1: "float16", 30: "bfloat16"}  # ggml type -> of torch
SHOWN_NAMES = 5
WAY_OUT = (
    "Use the model's Hugging Face folder instead: steps.STEP.model=FOLDER or hub:ORG/NAME@REVISION"
)
# Keys of the model's section that say what the configuration says by other keys.
COVERED_KEYS = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
}
# Contexts that Llama 3's scaling may have begun with; that of Llama 3 itself is the first.
ORIGINAL_CONTEXTS = (8192, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384, 32768, 65536, 131072)
Say = Callable[[str], None]


def read_gguf(file: Path, folder: Path, say: Say) -> dict[str, Any]:
    """Write the model of a GGUF file as a Hugging Face folder.

    The weights become bfloat16, or the file's own type where it holds floats of one type.

    Args:
        file: a GGUF file that is one whole model.
        folder: where to write; it is created.
        say: called with lines for people.

    Returns:
        The facts of gguf_facts(), ``dtype`` of the written weights, and ``tensors``: how many
        of the file there are, all of which were compared with what was written.

    Raises:
        StageError: the package gguf is not installed; the file is not GGUF, truncated, split, of
            an unknown architecture or tokenizer, or holds weights or settings that a Hugging Face
            folder would lose.
    """
    file = Path(file)
    header = read_header(file)
    require_gguf()
    _refuse_truncated(header)
    facts = gguf_facts(file)
    dtype = _dtype(header)
    config = _read_config(header, say)
    say(
        f"{file.name}: {header.architecture}, {header.parameters / 1e6:,.0f} M parameters, "
        f"to {folder} in {dtype}"
    )
    model = _load_model(header, config)
    state = _plain_state(header, model, dtype)
    tokenizer = _read_tokenizer(header)
    if len(tokenizer) > config.vocab_size:
        raise StageError(
            f"{file} has {len(tokenizer)} tokens but {config.vocab_size} embeddings. {WAY_OUT}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _save(model, state, dtype, folder, header)
    tokenizer.model_max_length = facts["context"] or tokenizer.model_max_length
    tokenizer.save_pretrained(folder)
    if not facts["chat_template"]:
        say(f"{file.name} has no chat template: the model continues texts, or choose a template")
    return {**facts, "dtype": dtype, "tensors": len(header.tensors)}


def _refuse_truncated(header: Header) -> None:
    """Compare the end of the last tensor with the size of the file."""
    gguf = require_gguf()
    end = 0
    for info in header.tensors.values():
        try:
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(info.type)]
        except (ValueError, KeyError):
            raise StageError(
                f"{header.path} holds {info.name} in the type {info.type}, which the package gguf "
                "does not know. Try a newer one (pip install -U gguf) or another quantization"
            ) from None
        end = max(end, info.offset + info.elements // block * size)
    actual = header.path.stat().st_size
    if header.data_start + end > actual:
        raise StageError(
            f"{header.path} is truncated: it has {actual:,} bytes and its weights need "
            f"{header.data_start + end:,}. Download it again"
        )


def _dtype(header: Header) -> str:
    """The type of the written weights. Vectors are float32 in most files, so matrices decide."""
    types = {info.type for info in header.tensors.values() if len(info.shape) > 1}
    if len(types) == 1 and types <= set(FLOAT_TYPES):
        return FLOAT_TYPES[types.pop()]
    return "bfloat16"


# --- the configuration ---


def _read_config(header: Header, say: Say) -> Any:
    """The configuration as transformers reads it, with what it leaves out."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(header.path.parent, gguf_file=header.path.name)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise StageError(
            f"{header.path} has the architecture {header.architecture!r}, which transformers "
            f"cannot read from GGUF ({error}). {WAY_OUT}"
        ) from error
    _clean(config)
    if header.architecture in KNOWN:
        _complete_heads(config, header)
        _complete_biases(config, header, say)
        _complete_rope(config, header, say)
        _name_left_out(header, say)
    return config


def _clean(config: Any) -> None:
    """Remove what is about the file: its folder, its title, the digits of a float32."""
    config._name_or_path = ""
    if hasattr(config, "_model_name_or_path"):
        del config._model_name_or_path
    epsilon = getattr(config, "rms_norm_eps", None)
    if epsilon:
        config.rms_norm_eps = float(f"{epsilon:.6g}")


def _complete_heads(config: Any, header: Header) -> None:
    head_dim = header.of_architecture("attention.key_length")
    usual = config.hidden_size // config.num_attention_heads
    if head_dim and head_dim != (getattr(config, "head_dim", None) or usual):
        config.head_dim = head_dim


def _complete_biases(config: Any, header: Header, say: Say) -> None:
    """transformers reads a llama without biases, whatever the file holds."""
    if header.architecture != "llama":
        return
    attention = [name for name in header.tensors if ".attn_" in name and name.endswith(".bias")]
    mlp = [name for name in header.tensors if ".ffn_" in name and name.endswith(".bias")]
    config.attention_bias = bool(attention)
    config.mlp_bias = bool(mlp)
    if attention or mlp:
        say(f"{header.path.name}: {len(attention) + len(mlp)} biases kept")


def _complete_rope(config: Any, header: Header, say: Say) -> None:
    kind = header.of_architecture("rope.scaling.type", "none")
    factor = header.of_architecture("rope.scaling.factor")
    theta = config.rope_parameters["rope_theta"]
    if ROPE_FACTORS in header.tensors:
        rope = _infer_llama3(header, theta, config)
        config.rope_parameters = {"rope_theta": theta, **rope.parameters()}
        say(f"{header.path.name}: rope scaling of Llama 3, factor {rope.factor:g}")
    elif kind == "linear" and factor:
        config.rope_parameters = {"rope_theta": theta, "rope_type": "linear", "factor": factor}
        say(f"{header.path.name}: linear rope scaling, factor {factor:g}")
    elif kind != "none":
        raise StageError(
            f"{header.path} has the rope scaling {kind!r}, which is not converted. {WAY_OUT}"
        )


def _infer_llama3(header: Header, theta: float, config: Any) -> Llama3Rope:
    """The scaling whose factors the file holds; GGUF stores only the result."""
    import numpy as np

    stored = np.asarray(_file_tensors(header)[ROPE_FACTORS].data, np.float32).reshape(-1)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    factor = round(float(stored.max()), 4)
    for context in ORIGINAL_CONTEXTS:
        rope = Llama3Rope(factor, original_max_position_embeddings=context)
        expected = rope.factors(theta, head_dim)
        if len(stored) == len(expected) and np.allclose(stored, expected, rtol=1e-3):
            return rope
    raise StageError(
        f"{header.path} has rope factors ({ROPE_FACTORS}) that are not those of Llama 3.1 with "
        f"any factor, so they are not converted. {WAY_OUT}"
    )


def _name_left_out(header: Header, say: Say) -> None:
    """One line about settings of the model that have no place in its configuration."""
    prefix = f"{header.architecture}."
    left_out = []
    for key in header.metadata:
        if key.startswith(prefix) and key.removeprefix(prefix) not in COVERED_KEYS:
            left_out.append(key)
    if left_out:
        say(f"{header.path.name}: {len(left_out)} settings not used: {', '.join(left_out)}")


# --- the weights ---


def _file_tensors(header: Header) -> dict[str, Any]:
    """Name -> tensor of the package gguf; the data stay in the file until they are used."""
    gguf = require_gguf()
    return {tensor.name: tensor for tensor in gguf.GGUFReader(header.path).tensors}


def _load_model(header: Header, config: Any) -> Any:
    """The model with the file's weights in float32.

    Raises:
        StageError: transformers cannot load them, or left some of the model without.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing kernels: the weights are dequantized
            read: Any = AutoModelForCausalLM.from_pretrained(
                header.path.parent,
                gguf_file=header.path.name,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise StageError(
            f"{header.path} ({header.architecture}) cannot be loaded: {first_line(error)}. "
            f"{WAY_OUT}"
        ) from error
    model, loaded = read
    # llama.cpp may leave out a bias that is zero; any other weight must be in the file.
    parameters = dict(model.named_parameters())
    missing = []
    for name in loaded["missing_keys"]:
        if name.endswith(".bias") and name in parameters:
            parameters[name].data.zero_()
        else:
            missing.append(name)
    if missing:
        raise StageError(
            f"{header.path} lacks {len(missing)} weights of its architecture "
            f"{header.architecture}: {', '.join(missing[:SHOWN_NAMES])}. {WAY_OUT}"
        )
    return model


def _plain_state(header: Header, model: Any, dtype: str) -> dict[str, Any]:
    """Name -> weight to save, after the comparison with the file."""
    import torch

    target = getattr(torch, dtype)
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    state = {}
    for name, weight in model.state_dict().items():
        if name not in tied:
            state[name] = weight.to(target)
    elements = sum(weight.numel() for weight in state.values())
    zero_biases = sum(
        weight.numel()
        for name, weight in state.items()
        if name.endswith(".bias") and not weight.any()
    )
    if not elements - zero_biases <= header.parameters <= elements:
        raise StageError(
            f"{header.path} holds {header.parameters:,} weights, and transformers takes "
            f"{elements:,} of them for {type(model).__name__}: the rest would be lost. {WAY_OUT}"
        )
    if header.architecture in KNOWN:
        _compare(header, state, model.config, target)
    return state


def _compare(header: Header, state: dict[str, Any], config: Any, target: Any) -> None:
    """Every tensor of the file must be in ``state``, bit for bit after dequantization."""
    import torch

    gguf = require_gguf()
    names = hf_names(header.architecture, config.num_hidden_layers, state)
    lost, different = [], []
    for name, tensor in _file_tensors(header).items():
        if name == ROPE_FACTORS:
            continue  # compared in _infer_llama3
        if name not in names:
            lost.append(name)
            continue
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        weight = torch.from_numpy(values.copy()).to(torch.float32)
        heads = rotary_heads(header.architecture, names[name], config)
        if heads:
            weight = to_halves(weight, heads)
        if not torch.equal(weight.to(target), state[names[name]]):
            different.append(name)
    if lost:
        raise StageError(
            f"{header.path} holds {len(lost)} tensors for which the architecture "
            f"{header.architecture} has no place: {', '.join(lost[:SHOWN_NAMES])}. {WAY_OUT}"
        )
    if different:
        raise StageError(
            f"{header.path}: transformers read {len(different)} tensors with other values than "
            f"the file holds: {', '.join(different[:SHOWN_NAMES])}. {WAY_OUT}"
        )


def _save(model: Any, state: dict[str, Any], dtype: str, folder: Path, header: Header) -> None:
    """Save through a model that was never loaded from GGUF, so that no mark of it is left."""
    import torch
    from transformers import GenerationConfig

    values = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "dtype"):
        values.pop(key, None)
    config = type(model.config).from_dict({**values, "dtype": dtype})
    config.use_cache = True
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(state, strict=False, assign=True)
    plain.tie_weights()
    generation = GenerationConfig.from_model_config(config)
    generation.eos_token_id = _stops(header)
    plain.generation_config = generation
    plain.save_pretrained(folder)


def _stops(header: Header) -> list[int] | None:
    """Ids that end a reply: llama.cpp has one for texts and one for turns."""
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    ids = [header.metadata.get(f"tokenizer.ggml.{key}") for key in keys]
    return list(dict.fromkeys(id for id in ids if id is not None)) or None


def _read_tokenizer(header: Header) -> Any:
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind == gguf_tokenizer.BYTE_LEVEL_BPE:
        return gguf_tokenizer.build_tokenizer(header)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(header.path.parent, gguf_file=header.path.name)
    except Exception as error:
        # Another kind of vocabulary: what the libraries raise depends on where they notice.
        raise StageError(
            f"{header.path} has a tokenizer of kind {kind!r}, which transformers cannot read from "
            f"GGUF ({type(error).__name__}: {error}). {WAY_OUT}"
        ) from error
