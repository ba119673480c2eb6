"""What is written as GGUF, computed by llama.cpp itself: tokens and probabilities."""

from __future__ import annotations

import pytest

from llmstages.convert.gguf_writer import write_gguf
from tests.convert.models import byte_level_tokenizer, write_model
from tests.convert.test_gguf_round_trip import MODELS, STRINGS

llama_cpp = pytest.importorskip("llama_cpp", reason="pip install 'llmstages[llama_cpp]'")
pytest.importorskip("gguf")


def probabilities(folder, file, ids):
    """(log-probabilities by transformers, by llama.cpp) after each of the ids."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder)
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    model = llama_cpp.Llama(str(file), n_ctx=128, logits_all=True, verbose=False)
    try:
        model.eval(ids)
        scores = torch.tensor(model.scores[: len(ids)].copy())
    finally:
        model.close()
    return expected, torch.log_softmax(scores, -1)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_computes_the_same(name, tmp_path):
    kind, changes = MODELS[name]
    folder = write_model(tmp_path / "model", kind, **changes)
    write_gguf(folder, tmp_path / "x.gguf", "float32")
    expected, actual = probabilities(folder, tmp_path / "x.gguf", list(range(5, 101)))
    # The caches of keys and values are float16 in llama.cpp.
    assert (expected - actual).abs().max() < 0.05


@pytest.mark.parametrize(
    "pattern, digits", [("gpt2", False), ("gpt2", True), ("llama3", False), ("qwen", False)]
)
def test_every_tokenizer_splits_the_same(pattern, digits, tmp_path):
    import unicodedata

    tokenizer = byte_level_tokenizer(pattern, digits)
    folder = write_model(tmp_path / "model", tokenizer=tokenizer)
    write_gguf(folder, tmp_path / "x.gguf", "float16")
    model = llama_cpp.Llama(str(tmp_path / "x.gguf"), vocab_only=True, verbose=False)
    try:
        for text in STRINGS:
            if pattern == "qwen":
                text = unicodedata.normalize("NFC", text)
            ids = model.tokenize(text.encode(), add_bos=False, special=True)
            assert ids == tokenizer(text)["input_ids"], text
    finally:
        model.close()
