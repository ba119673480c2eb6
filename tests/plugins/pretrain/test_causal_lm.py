"""Pretraining learns, is repeatable bit for bit, loses no text, and stops before a non-finite gradient is applied."""

from __future__ import annotations

import math

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.plugins.pretrain import causal_lm
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from llmstages.text.messages import message
from tests.tiny import TEXTS, perform, saved, saved_model, tiny_model, tiny_tokenizer

TINY = CausalLMConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=128,
    max_length=64,
    epochs=6.0,
    validation_stride=10,
    warmup_steps=2,
)


@pytest.fixture
def inputs(tmp_path):
    corpus = saved(
        tmp_path / "corpus",
        "corpus",
        [{"id": str(i), "url": "u", "text": f"{t} {i}"} for i, t in enumerate(TEXTS)],
    )
    reading = saved(
        tmp_path / "reading",
        "dialogues",
        [
            {
                "messages": [
                    message("user", "Bo was born in Ra. Question: where? Answer:"),
                    message("assistant", "Ra."),
                ],
                "render": "plain",
            }
        ]
        * 5,
    )
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return {
        "corpus": (corpus,),
        "dialogues": (reading,),
        "tokenizer": Artifact("tokenizer", "tokenizer", tmp_path / "tokenizer", "t"),
        "model": None,
    }


def test_it_learns_and_the_same_seed_gives_the_same_bits(tmp_path, inputs):
    made, metrics = perform(CausalLM, tmp_path / "one", TINY, **inputs)
    assert metrics["validation_loss"] < metrics["unigram_loss"] - 1
    again, _ = perform(CausalLM, tmp_path / "two", TINY, **inputs)
    assert (made.path / "model.safetensors").read_bytes() == (
        again.path / "model.safetensors"
    ).read_bytes()
    assert (made.path / "log.jsonl").read_bytes() == (again.path / "log.jsonl").read_bytes()
    assert '"use_cache": false' not in (made.path / "generation_config.json").read_text()
    assert all(
        g["passed"] for g in __import__("json").loads((made.path / "gates.json").read_text())
    )


def test_training_goes_on_from_a_model(tmp_path, inputs):
    _, first = perform(CausalLM, tmp_path / "one", TINY, **inputs)
    base, _ = perform(CausalLM, tmp_path / "base", TINY, **inputs)
    _, further = perform(
        CausalLM, tmp_path / "more", TINY, **{**inputs, "model": base, "tokenizer": None}
    )
    assert further["validation_loss"] < first["validation_loss"]


def test_dialogues_carry_loss_on_answers_only(tmp_path, inputs):
    rows, _ = CausalLM().documents(
        TINY, Context("pretrain", tmp_path, tmp_path, {**inputs, "corpus": ()}), tiny_tokenizer()
    )
    text = tiny_tokenizer().decode(
        [t for ids, on in map(rows.read, range(len(rows))) for t in ids[on]]
    )
    assert text == " Ra." * 5


def plainly(config, tokenizer, texts, weight, spoken):
    """(training rows, held-out rows) as lists of ids, the way it reads without shards."""
    import random

    from llmstages.data import dialogues
    from llmstages.data.dialogues import share_of
    from llmstages.text import chat_format

    rng, train, held = random.Random(config.seed), [], []
    texts = [texts[i] for i in share_of(len(texts), weight, rng)]
    for index, (text, ids) in enumerate(
        zip(texts, chat_format.document_ids(tokenizer, texts), strict=True)
    ):
        into = (
            held
            if index % config.validation_stride == config.validation_stride - 1
            and texts.count(text) == 1
            else train
        )
        into += [
            [ids[0], *ids[i : i + config.max_length - 1]]
            for i in range(1, max(len(ids), 2), config.max_length - 1)
        ]
    train += [
        row.ids
        for row in dialogues.render_dialogues(
            tokenizer, dialogues.load(spoken, config.mixture_weights, rng)
        )
    ]
    return train, held or train[:1]


@pytest.mark.parametrize("weight", [1.0, 0.6, 2.3])
def test_documents_are_split_shared_and_held_out_as_lists_would_be(tmp_path, inputs, weight):
    import dataclasses as dc

    texts = ["", *(f"{t} {i}" for i, t in enumerate(TEXTS)), *TEXTS[:2] * 2, "one short text"]
    corpus = saved(
        tmp_path / "mixed",
        "corpus",
        [{"id": str(i), "url": "u", "text": t} for i, t in enumerate(texts)],
    )
    config = dc.replace(
        TINY,
        validation_stride=4,
        seed=3,
        max_length=40,
        mixture_weights={"mixed": weight, "reading": 0.5},
    )
    ctx = Context("pretrain", tmp_path, tmp_path, {**inputs, "corpus": (corpus,)})
    found = CausalLM().documents(config, ctx, tiny_tokenizer())
    expected = plainly(config, tiny_tokenizer(), texts, weight, inputs["dialogues"])
    for pieces, lists in zip(found, expected, strict=True):
        assert [pieces.read(i)[0].tolist() for i in range(len(pieces))] == lists and lists


def test_unigram_loss_is_that_of_the_frequencies():
    import numpy as np

    held = [{"labels": np.array([-100, 3, 3, 1, 9, -100])}]
    counts = np.array([0, 2, 0, 5])  # 9 was never seen
    total = 2 + 5 + 2 + 1
    assert causal_lm.unigram(held, counts) == pytest.approx(
        -sum(math.log(n / total) for n in (6, 6, 3, 1)) / 4
    )


def test_the_corpus_is_encoded_once_for_all_runs_of_a_store(tmp_path, inputs, monkeypatch):
    from llmstages.text import encode

    said, plain, asked = [], encode.encode_rows, []
    monkeypatch.setattr(
        encode,
        "encode_rows",
        lambda tokenizer, texts: (asked.extend(texts), plain(tokenizer, texts))[1],
    )
    for name in "ab":
        (tmp_path / name).mkdir()
        ctx = Context(
            "pretrain",
            tmp_path / name,
            tmp_path / name,
            {**inputs, "dialogues": ()},
            cache=tmp_path / "cache",
            say=said.append,
        )
        CausalLM().documents(TINY, ctx, tiny_tokenizer())
    assert len(asked) == len(TEXTS) and "tokens: encoded" in said[0] and "tokens: reused" in said[1]


def test_a_row_needs_room(tmp_path, inputs):
    with pytest.raises(StageError, match="row=1 has no room"):
        perform(CausalLM, tmp_path / "one", CausalLMConfig(max_length=1), **inputs)


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
        CausalLM().fresh(
            CausalLMConfig(
                architecture="gpt2",
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=64,
            ),
            tiny_tokenizer(),
        )
    assert CausalLM().fresh(
        CausalLMConfig(
            architecture="gpt2",
            init="plain",
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
        ),
        tiny_tokenizer(),
    )
    with pytest.raises(StageError, match="Try llama"):
        CausalLM().fresh(CausalLMConfig(architecture="nothing"), tiny_tokenizer())


def test_no_documents_is_said(tmp_path, inputs):
    with pytest.raises(StageError, match="no documents"):
        perform(CausalLM, tmp_path / "none", TINY, **{**inputs, "corpus": (), "dialogues": ()})


def test_tables_are_equal_byte_for_byte(tmp_path):
    for name in "ab":
        tables.save([{"x": 1, "y": ["é"]}] * 3, tmp_path / name)
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()
    }
