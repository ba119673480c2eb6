"""A Hugging Face folder as one GGUF file, which llama.cpp, Ollama and LM Studio read.

Written are the architectures llama, qwen2 and qwen3 with a byte-level BPE tokenizer, as float32,
float16, bfloat16 or q8_0. Weights are read from safetensors one by one, so that memory holds one
tensor. Left out on purpose: quantization below 8 bits, which needs calibration
(llama-quantize makes it from what is written here). An architecture, tokenizer or setting that
llama.cpp would compute differently is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.convert.gguf_header import ROPE_FACTORS
from llmstages.convert.gguf_tokenizer import TokenizerFields, tokenizer_fields
from llmstages.convert.gguf_weights import (
    KNOWN,
    Llama3Rope,
    hf_names,
    require_gguf,
    rotary_heads,
    to_pairs,
)
from llmstages.convert.weight_files import WeightFiles
from llmstages.core.errors import StageError, near

# What the user chooses -> the names of gguf.GGMLQuantizationType and gguf.LlamaFileType.
DTYPES = {
    "float32": ("F32", "ALL_F32"),
    "float16": ("F16", "MOSTLY_F16"),
    "bfloat16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
SHORT_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
SHOWN_NAMES = 5
WAY_OUT = (
    "Export a folder instead (--to FOLDER) and convert it with convert_hf_to_gguf.py of llama.cpp"
)
Advance = Callable[[float], None]


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor before it is written.

    Attributes:
        name: in GGUF.
        hf_name: in transformers; "" for the table of rope factors.
        shape: of the written tensor.
        type: a gguf.GGMLQuantizationType.
    """

    name: str
    hf_name: str
    shape: tuple[int, ...]
    type: Any


def write_gguf(
    folder: Path,
    file: Path,
    dtype: str,
    *,
    name: str = "",
    say: Callable[[str], None] = lambda line: None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Write the model and the tokenizer of a Hugging Face folder as a GGUF file.

    The file is written aside and renamed, so it is whole or not there.

    Args:
        dtype: of matrices: float32, float16, bfloat16 or q8_0; vectors are float32.
        name: the model's name in the file; that of the folder if empty.
        say: called with lines for people.
        advance: called with the share of the tensors that is done, in steps that sum to 1.

    Returns:
        ``tensors`` (how many), ``bytes`` (of the file), ``pre_tokenizer`` (its name in llama.cpp),
        ``kept_float16`` (matrices whose rows do not fit q8_0).

    Raises:
        StageError: the package gguf is not installed; the model cannot be written.
    """
    from transformers import AutoConfig, AutoTokenizer

    gguf = require_gguf()
    dtype = known_dtype(dtype)
    config = AutoConfig.from_pretrained(folder)
    _refuse_unknown(config, folder)
    weights = WeightFiles(folder)
    _refuse_incomplete(config, weights)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fields = tokenizer_fields(tokenizer, config.vocab_size)
    for note in fields.notes:
        say(note)
    tensors = _plan(config, weights, dtype)
    kept = 0
    if dtype == "q8_0":
        float16 = gguf.GGMLQuantizationType.F16
        kept = sum(tensor.type == float16 for tensor in tensors)
    if kept:
        say(f"{kept} matrices stay float16: their rows are not a multiple of 32 numbers")
    part = file.with_name(f"{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        writer = gguf.GGUFWriter(part, config.model_type)
        _add_model(writer, config, name or folder.name, dtype)
        _add_tokenizer(writer, fields)
        _write(writer, tensors, config, weights, advance)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    return {
        "tensors": len(tensors),
        "bytes": file.stat().st_size,
        "pre_tokenizer": fields.pre,
        "kept_float16": kept,
    }


def known_dtype(given: str) -> str:
    """The full name of a type, such as float16 for f16.

    Raises:
        StageError: it is not one that is written.
    """
    dtype = SHORT_NAMES.get(given, given)
    if dtype in DTYPES:
        return dtype
    names = [*DTYPES, *SHORT_NAMES]
    raise StageError(
        f"GGUF is not written as {given!r}.{near(given, names)} There are {', '.join(DTYPES)}; "
        "for fewer bits write float16 and use llama-quantize of llama.cpp"
    )


# --- what cannot be written ---


def _refuse_unknown(config: Any, folder: Path) -> None:
    """Refuse an architecture or a setting that llama.cpp would compute differently."""
    architecture = config.model_type
    if architecture not in KNOWN:
        raise StageError(
            f"{folder} has the architecture {architecture!r}; GGUF is written for "
            f"{', '.join(KNOWN)}. {WAY_OUT}"
        )
    problems = []
    if getattr(config, "quantization_config", None):
        problems.append("its weights are quantized (quantization_config)")
    if config.hidden_act != "silu":
        problems.append(f"hidden_act={config.hidden_act}, llama.cpp computes silu")
    if getattr(config, "use_sliding_window", False):
        problems.append("use_sliding_window=true")
    if architecture != "llama" and getattr(config, "attention_bias", False):
        problems.append("attention_bias=true")
    problems += _rope_problems(config.rope_parameters)
    if problems:
        raise StageError(
            f"{folder} ({architecture}) cannot be written as GGUF: {'; '.join(problems)}. {WAY_OUT}"
        )


def _rope_problems(rope: Mapping[str, Any]) -> list[str]:
    problems = []
    if rope.get("partial_rotary_factor", 1) != 1:
        problems.append(f"partial_rotary_factor={rope['partial_rotary_factor']}")
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        problems.append(f"rope scaling {kind!r} (default, linear and llama3 can be)")
    return problems


def _refuse_incomplete(config: Any, weights: WeightFiles) -> None:
    """The files must hold the weights of the architecture, no more and no fewer."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    stored = weights.shapes()
    if config.tie_word_embeddings:
        # The head is the embeddings; some programs save it all the same.
        expected.pop("lm_head.weight", None)
        stored.pop("lm_head.weight", None)
    if stored == expected:
        return
    wrong = []
    for name in sorted({*expected, *stored}):
        if stored.get(name) != expected.get(name):
            wrong.append(f"{name} {stored.get(name, 'missing')}, not {expected.get(name, 'there')}")
    raise StageError(
        f"{weights.folder} holds other weights than its config.json says, {len(wrong)} of them: "
        f"{'; '.join(wrong[:SHOWN_NAMES])}"
    )


# --- what is written ---


def _add_model(writer: Any, config: Any, name: str, dtype: str) -> None:
    gguf = require_gguf()
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType[DTYPES[dtype][1]])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = head_size(config)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def head_size(config: Any) -> int:
    """Numbers of one head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _add_tokenizer(writer: Any, fields: TokenizerFields) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(fields.pre)
    writer.add_token_list(fields.tokens)
    writer.add_token_types(fields.types)
    writer.add_token_merges(fields.merges)
    for name, id in fields.named.items():
        getattr(writer, f"add_{name}_token_id")(id)
    writer.add_add_bos_token(fields.add_bos)
    writer.add_add_eos_token(fields.add_eos)
    if fields.chat_template:
        writer.add_chat_template(fields.chat_template)


def _plan(config: Any, weights: WeightFiles, dtype: str) -> list[PlannedTensor]:
    """Every tensor of the file in order, with its type."""
    gguf = require_gguf()
    types = gguf.GGMLQuantizationType
    shapes = weights.shapes()
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    chosen = types[DTYPES[dtype][0]]
    block, _ = gguf.GGML_QUANT_SIZES[chosen]
    tensors = []
    for name, hf_name in hf_names(config.model_type, config.num_hidden_layers, shapes).items():
        shape = shapes[hf_name]
        if len(shape) == 1:
            type = types.F32
        elif shape[-1] % block:
            type = types.F16
        else:
            type = chosen
        tensors.append(PlannedTensor(name, hf_name, shape, type))
    if config.rope_parameters.get("rope_type") == "llama3":
        tensors.append(PlannedTensor(ROPE_FACTORS, "", (head_size(config) // 2,), types.F32))
    return tensors


def _write(
    writer: Any,
    tensors: list[PlannedTensor],
    config: Any,
    weights: WeightFiles,
    advance: Advance | None,
) -> None:
    import numpy as np

    gguf = require_gguf()
    for tensor in tensors:
        block, size = gguf.GGML_QUANT_SIZES[tensor.type]
        elements = int(np.prod(tensor.shape))
        nbytes = elements // block * size
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), nbytes, raw_dtype=tensor.type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    try:
        for tensor, values in _values(tensors, config, weights):
            writer.write_tensor_data(_encoded(tensor, values))
            if advance:
                advance(1 / len(tensors))
    finally:
        writer.close()


def _values(
    tensors: list[PlannedTensor], config: Any, weights: WeightFiles
) -> Iterator[tuple[PlannedTensor, Any]]:
    """(tensor, its values as a float32 array in the order of llama.cpp)."""
    import numpy as np

    for tensor in tensors:
        if not tensor.hf_name:
            rope = Llama3Rope.of(config.rope_parameters)
            factors = rope.factors(config.rope_parameters["rope_theta"], head_size(config))
            yield tensor, np.asarray(factors, np.float32)
            continue
        weight = weights.read(tensor.hf_name).float()
        heads = rotary_heads(config.model_type, tensor.hf_name, config)
        if heads:
            weight = to_pairs(weight, heads)
        yield tensor, weight.contiguous().numpy()


def _encoded(tensor: PlannedTensor, values: Any) -> Any:
    """The bytes of a tensor in its type."""
    import numpy as np

    gguf = require_gguf()
    if not np.isfinite(values).all():
        raise StageError(f"{tensor.hf_name} holds NaN or infinity: the model is damaged")
    largest = np.finfo(np.float16).max
    is_half = tensor.type == gguf.GGMLQuantizationType.F16
    if is_half and np.abs(values).max(initial=0) > largest:
        raise StageError(
            f"{tensor.hf_name} holds numbers above {largest:g}, the largest of float16: "
            "choose --dtype bfloat16"
        )
    return np.ascontiguousarray(gguf.quantize(values, tensor.type))
