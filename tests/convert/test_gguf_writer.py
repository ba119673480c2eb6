"""Models and tokenizers that llama.cpp would compute differently are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmstages.convert.gguf_writer import write_gguf
from llmstages.core.errors import StageError
from tests.convert.models import byte_level_tokenizer, sizes, write_model

gguf = pytest.importorskip("gguf")


def change_json(folder: Path, name: str, change) -> None:
    path = folder / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("gpt2", {}, "architecture 'gpt2'"),
        ("mistral", {}, "architecture 'mistral'"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act=gelu"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "rope scaling 'yarn'",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
            "rope scaling 'dynamic'",
        ),
    ],
)
def test_a_model_that_is_not_known_is_refused(kind, changes, message, tmp_path):
    folder = write_model(tmp_path / "model", kind, **changes)
    with pytest.raises(StageError, match=message) as error:
        write_gguf(folder, tmp_path / "x.gguf", "float16")
    assert "convert_hf_to_gguf.py" in str(error.value)
    assert not list(tmp_path.glob("x.gguf*"))


def quantized(config: dict[str, Any]) -> None:
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def test_quantized_weights_are_refused(tmp_path):
    folder = write_model(tmp_path / "model")
    change_json(folder, "config.json", quantized)
    with pytest.raises(StageError, match="quantization_config"):
        write_gguf(folder, tmp_path / "x.gguf", "float16")


def unigram() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    return PreTrainedTokenizerFast(tokenizer_object=engine, unk_token="<unk>")


def with_prefix_space() -> Any:
    from tokenizers import pre_tokenizers

    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def lower_cased() -> Any:
    from tokenizers import normalizers

    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def with_stripping_token() -> Any:
    from tokenizers import AddedToken

    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


@pytest.mark.parametrize(
    "make, message",
    [
        (unigram, "its model is Unigram"),
        (with_prefix_space, "no name for its pre-tokenizer"),
        (lower_cased, "its normalizer is Lowercase"),
        (with_stripping_token, "'<mask>' has lstrip=true"),
        (lambda: byte_level_tokenizer("llama3", digits=True), "no name for its pre-tokenizer"),
    ],
)
def test_a_tokenizer_that_is_not_known_is_refused(make, message, tmp_path):
    folder = write_model(tmp_path / "model", tokenizer=make())
    with pytest.raises(StageError, match=message) as error:
        write_gguf(folder, tmp_path / "x.gguf", "float16")
    assert "convert_hf_to_gguf.py" in str(error.value)


def test_words_in_the_vocabulary_need_the_right_name(tmp_path):
    """llama.cpp's llama-bpe takes a known word as it is; smaug-bpe always merges."""
    for ignore, name in ((True, "llama-bpe"), (False, "smaug-bpe")):
        tokenizer = byte_level_tokenizer("llama3")
        tokenizer.backend_tokenizer.model.ignore_merges = ignore
        folder = write_model(tmp_path / name, tokenizer=tokenizer)
        assert write_gguf(folder, tmp_path / "x.gguf", "f16")["pre_tokenizer"] == name


def test_weights_that_do_not_fit_the_config_are_named(tmp_path):
    folder = write_model(tmp_path / "model")
    change_json(folder, "config.json", lambda config: config.update(attention_bias=True))
    with pytest.raises(StageError, match=r"8 of them: model.layers.0.self_attn.k_proj.bias"):
        write_gguf(folder, tmp_path / "x.gguf", "float16")


def test_a_vocabulary_beyond_the_embeddings_is_refused(tmp_path):
    folder = write_model(tmp_path / "model", vocab_size=300)
    with pytest.raises(StageError, match="only 300 embeddings"):
        write_gguf(folder, tmp_path / "x.gguf", "float16")


def change_weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights["model.norm.weight"], weights["model.layers.0.mlp.up_proj.weight"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value, message", [(float("nan"), "NaN"), (1e6, "--dtype bfloat16")])
def test_numbers_that_a_type_cannot_hold_are_refused(value, message, tmp_path):
    folder = write_model(tmp_path / "model")
    change_weights(folder, lambda _, matrix: matrix[0].fill_(value))
    with pytest.raises(StageError, match=message):
        write_gguf(folder, tmp_path / "x.gguf", "float16")
    assert not list(tmp_path.glob("x.gguf*"))


def test_a_matrix_with_odd_rows_stays_float16(tmp_path):
    folder = write_model(tmp_path / "model", intermediate_size=100)
    lines: list[str] = []
    written = write_gguf(folder, tmp_path / "x.gguf", "q8_0", say=lines.append)
    assert written["kept_float16"] == 2  # down_proj of two layers
    assert any("2 matrices stay float16" in line for line in lines)
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.0.ffn_up.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"


def test_several_files_of_weights_are_read(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = write_model(tmp_path / "model")
    parts = tmp_path / "parts"
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(parts, max_shard_size="60KB")
    byte_level_tokenizer().save_pretrained(parts)
    assert (parts / "model.safetensors.index.json").exists()
    for name in ("model", "parts"):
        write_gguf(tmp_path / name, tmp_path / f"{name}.gguf", "float32", name="same")
    assert (tmp_path / "model.gguf").read_bytes() == (tmp_path / "parts.gguf").read_bytes()
    next(parts.glob("model-00002*")).unlink()
    with pytest.raises(StageError, match="named by model.safetensors.index.json"):
        write_gguf(parts, tmp_path / "x.gguf", "float32")


def test_an_unknown_type_is_named(tmp_path):
    with pytest.raises(StageError, match="not written as 'q4_k_m'.*llama-quantize"):
        write_gguf(tmp_path, tmp_path / "x.gguf", "q4_k_m")


def test_progress_sums_to_one(tmp_path):
    tokenizer = byte_level_tokenizer()
    folder = write_model(tmp_path / "model", tokenizer=tokenizer)
    steps: list[float] = []
    write_gguf(folder, tmp_path / "x.gguf", "bf16", advance=steps.append)
    assert sum(steps) == pytest.approx(1)
    assert sizes(tokenizer)["vocab_size"] > len(tokenizer)  # a padded row is written too
