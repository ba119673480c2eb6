"""Pretraining learns, is repeatable bit for bit, loses no text, and stops before a non-finite gradient is applied."""

from __future__ import annotations

import pytest

from llmstages import tables
from llmstages.plugins.pretrain import causal_lm
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from llmstages.stage import Artifact, StageError
from llmstages.tables import message
from tests.tiny import TEXTS, perform, saved, saved_model, tiny_model, tiny_tokenizer

TINY = CausalLMConfig(hidden=32, layers=2, heads=2, intermediate=64, context=128, row=64, epochs=6.0, held_out=10, warmup=2)


@pytest.fixture
def inputs(tmp_path):
    corpus = saved(tmp_path / "corpus", "corpus", [{"id": str(i), "url": "u", "text": f"{t} {i}"} for i, t in enumerate(TEXTS)])
    reading = saved(tmp_path / "reading", "dialogues", [{"messages": [message("user", "Bo was born in Ra. Question: where? Answer:"),
                                                                      message("assistant", "Ra.")], "render": "plain"}] * 5)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return {"corpus": (corpus,), "dialogues": (reading,), "tokenizer": Artifact("tokenizer", "tokenizer", tmp_path / "tokenizer", "t"), "model": None}


def test_it_learns_and_the_same_seed_gives_the_same_bits(tmp_path, inputs):
    made, metrics = perform(CausalLM, tmp_path / "one", TINY, **inputs)
    assert metrics["validation_loss"] < metrics["unigram_loss"] - 1
    again, _ = perform(CausalLM, tmp_path / "two", TINY, **inputs)
    assert (made.path / "model.safetensors").read_bytes() == (again.path / "model.safetensors").read_bytes()
    assert (made.path / "log.jsonl").read_bytes() == (again.path / "log.jsonl").read_bytes()
    assert '"use_cache": false' not in (made.path / "generation_config.json").read_text()
    assert all(g["passed"] for g in __import__("json").loads((made.path / "gates.json").read_text()))


def test_training_goes_on_from_a_model(tmp_path, inputs):
    _, first = perform(CausalLM, tmp_path / "one", TINY, **inputs)
    base, _ = perform(CausalLM, tmp_path / "base", TINY, **inputs)
    _, further = perform(CausalLM, tmp_path / "more", TINY, **{**inputs, "model": base, "tokenizer": None})
    assert further["validation_loss"] < first["validation_loss"]


def test_dialogues_carry_loss_on_answers_only(tmp_path, inputs):
    from llmstages.stage import Context

    rows, _ = CausalLM().rendered(TINY, Context("pretrain", tmp_path, tmp_path, {**inputs, "corpus": ()}), tiny_tokenizer())
    text = tiny_tokenizer().decode([t for row in rows for t, on in zip(row.ids, row.supervised, strict=True) if on])
    assert text == " Ra." * 5


def test_long_documents_are_split_and_nothing_is_lost():
    parts = causal_lm.pieces([1, *range(10, 40)], 8)
    assert all(p[0] == 1 and len(p) <= 8 for p in parts) and [t for p in parts for t in p[1:]] == list(range(10, 40))


def test_a_nan_stops_before_the_weights_change(tmp_path, inputs):
    import torch

    source = saved_model(tmp_path / "start")
    model = tiny_model(tiny_tokenizer())
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(source.path)
    with pytest.raises(StageError, match="not finite|nan"):
        perform(CausalLM, tmp_path / "broken", TINY, **{**inputs, "model": source})
    assert not (tmp_path / "broken" / "out" / "model.safetensors").exists()


def test_foreign_architectures_need_the_plain_start(tmp_path, inputs):
    with pytest.raises(StageError, match="start=plain"):
        CausalLM().fresh(CausalLMConfig(architecture="gpt2", hidden=32, layers=1, heads=2, intermediate=64), tiny_tokenizer())
    assert CausalLM().fresh(CausalLMConfig(architecture="gpt2", start="plain", hidden=32, layers=1, heads=2, intermediate=64), tiny_tokenizer())
    with pytest.raises(StageError, match="Try llama"):
        CausalLM().fresh(CausalLMConfig(architecture="nothing"), tiny_tokenizer())


def test_no_documents_is_said(tmp_path, inputs):
    with pytest.raises(StageError, match="no documents"):
        perform(CausalLM, tmp_path / "none", TINY, **{**inputs, "corpus": (), "dialogues": ()})


def test_tables_are_equal_byte_for_byte(tmp_path):
    for name in "ab":
        tables.save([{"x": 1, "y": ["é"]}] * 3, tmp_path / name)
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}
