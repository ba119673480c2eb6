"""Models that are asked keep the type they were saved in."""

from __future__ import annotations

import pytest

from llmstages.core.stage import Artifact, Context
from llmstages.train import inference
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    """Saves the tiny model in a type; returns its artifact."""
    import torch

    def save(dtype):
        path = tmp_path / dtype
        tiny_model(tiny_tokenizer()).to(getattr(torch, dtype)).save_pretrained(path)
        return Artifact(dtype, "model", path, dtype)

    return save


@pytest.mark.parametrize(
    ("saved", "asked", "computed"),
    [
        ("float32", "auto", "float32"),
        ("bfloat16", "auto", "bfloat16"),
        ("bfloat16", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16"),
    ],
)
def test_auto_is_the_type_of_the_weights(tmp_path, folder, saved, asked, computed):
    ctx = Context("evaluate", tmp_path, tmp_path, {})
    model = inference.load_for_inference(folder(saved), ctx, asked)
    assert str(model.dtype) == f"torch.{computed}"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 sse\n", True),
        ("flags\t\t: fpu avx2 avx512f sse\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("model name\t: something\n", True),
    ],
)
def test_instructions_are_read_from_the_system(tmp_path, info, expected):
    file = tmp_path / "cpuinfo"
    file.write_text(info)
    assert inference.computes_bfloat16(file) is expected
    assert inference.computes_bfloat16(tmp_path / "none")


def test_a_slow_type_is_named(tmp_path, folder, monkeypatch):
    said: list[str] = []
    ctx = Context("evaluate", tmp_path, tmp_path, {}, say=said.append)
    monkeypatch.setattr(inference, "computes_bfloat16", lambda: False)
    monkeypatch.setattr("llmstages.train.distributed.compute_device", lambda: "cpu")
    inference.load_for_inference(folder("float32"), ctx)
    assert not said
    inference.load_for_inference(folder("bfloat16"), ctx)
    assert "evaluate.dtype=float32 may be faster" in said[0]
