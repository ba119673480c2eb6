"""Pretraining learns, is repeatable bit for bit, loses no text, and stops at non-finite numbers."""

from __future__ import annotations

import copy
import dataclasses as dc
import json
import math
import random

import pytest
from transformers import PreTrainedTokenizerFast

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import dialogues, tables
from llmstages.plugins.pretrain import documents, requirements, validation
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from llmstages.plugins.pretrain.documents import load_documents
from llmstages.text import chat_format
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
def inputs(inputs, tmp_path):
    """A corpus and dialogues in running text."""
    question = message("user", "Bo was born in Ra. Question: where? Answer:")
    row = {"messages": [question, message("assistant", "Ra.")], "render": "plain"}
    reading = saved(tmp_path / "reading", "dialogues", [row] * 5)
    return {**inputs, "dialogues": (reading,)}


def test_it_learns_and_the_same_seed_gives_the_same_bits(tmp_path, inputs):
    made, metrics = perform(CausalLM, tmp_path / "one", TINY, **inputs)
    assert metrics["validation_loss"] < metrics["unigram_loss"] - 1
    again, _ = perform(CausalLM, tmp_path / "two", TINY, **inputs)
    for name in ("model.safetensors", "log.jsonl"):
        assert (made.path / name).read_bytes() == (again.path / name).read_bytes(), name
    assert '"use_cache": false' not in (made.path / "generation_config.json").read_text()
    checks = json.loads((made.path / "checks.json").read_text())
    assert all(check["passed"] for check in checks)


def test_training_continues_from_a_model(tmp_path, inputs):
    _, first = perform(CausalLM, tmp_path / "one", TINY, **inputs)
    base, _ = perform(CausalLM, tmp_path / "base", TINY, **inputs)
    _, further = perform(
        CausalLM, tmp_path / "more", TINY, **{**inputs, "model": base, "tokenizer": None}
    )
    assert further["validation_loss"] < first["validation_loss"]


def test_dialogues_carry_loss_on_answers_only(tmp_path, inputs):
    ctx = Context("pretrain", tmp_path, tmp_path, {**inputs, "corpus": ()})
    segments = load_documents(TINY, ctx, tiny_tokenizer()).train
    supervised = []
    for index in range(len(segments)):
        ids, mask = segments.read(index)
        supervised += ids[mask].tolist()
    assert tiny_tokenizer().decode(supervised) == " Ra." * 5


@pytest.mark.parametrize("words, train, held_out", [(400, 9, 1), (4, 1, 1)])
def test_the_end_of_a_single_document_is_held_out(tmp_path, words, train, held_out):
    text = " ".join(f"word{number}" for number in range(words))
    book = saved(tmp_path / "book", "corpus", [{"id": "1", "url": "u", "text": text}])
    lines = []
    ctx = Context("pretrain", tmp_path, tmp_path, {"corpus": (book,)}, say=lines.append)
    tokenizer = tiny_tokenizer()
    (ids,) = chat_format.document_ids(tokenizer, [text])
    config = dc.replace(TINY, max_length=2 + len(ids) // 10)
    if words == 4:
        config = dc.replace(TINY, max_length=500)
    loaded = load_documents(config, ctx, tokenizer)
    parts, end = loaded.train, loaded.held_out
    assert (len(parts), len(end)) == (train, held_out)
    assert lines[-1].startswith("pretrain: too few documents to hold any out")
    trained = [number for index in range(train) for number in parts.read(index)[0].tolist()[1:]]
    measured = [number for index in range(held_out) for number in end.read(index)[0].tolist()[1:]]
    if words == 4:
        assert measured == trained  # there is nothing else to measure with
    else:
        assert trained + measured == ids[1:]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_rows_beyond_the_positions_are_refused_before_anything_is_read(
    architecture, tmp_path, inputs
):
    config = dc.replace(TINY, architecture=architecture, init="plain", max_length=600)
    for how in ("run", "prepare"):
        ctx = Context("pretrain", tmp_path, tmp_path, inputs)
        with pytest.raises(StageError, match="max_length=600 is more than the 128 positions"):
            getattr(CausalLM(), how)(config, ctx)
    known = {"tokenizer": [{"name": "t", "vocab_size": 300}], "model": [], "corpus": []}
    estimate = CausalLM().estimate(config, {**known, "dialogues": []})
    assert "max_length=600" in estimate["no_estimate"]


def test_another_tokenizer_than_that_of_the_model_is_refused(tmp_path, inputs):
    model = saved_model(tmp_path / "model")
    other = copy.deepcopy(tiny_tokenizer())
    ctx = Context("pretrain", tmp_path, tmp_path, {**inputs, "model": model})
    # The same with further tokens belongs to the model too.
    other.add_tokens(["brand-new"])
    requirements.require_same_tokens(other, tiny_tokenizer(), ctx)
    swapped = json.loads(other.backend_tokenizer.to_str())
    vocabulary = swapped["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(swapped))
    foreign = PreTrainedTokenizerFast(tokenizer_file=str(file))
    with pytest.raises(StageError, match=r"2 of its \d+ tokens have another id .*tokenizer=null"):
        requirements.require_same_tokens(foreign, tiny_tokenizer(), ctx)


def split_in_memory(config, tokenizer, texts, weight, sources):
    """(training rows, held-out rows) as lists of ids, by the simplest code without a store."""
    rng = random.Random(config.seed)
    train, held_out = [], []
    drawn = [int(index) for index in dialogues.share_of(len(texts), weight, rng)]
    once = list(dict.fromkeys(drawn))
    due = [index for place, index in enumerate(once, 1) if place % config.validation_stride == 0]
    due = [index for index in due if [texts[other] for other in once].count(texts[index]) == 1]
    encoded = chat_format.document_ids(tokenizer, texts)
    room = config.max_length - 1  # each segment begins with BOS
    for place, index in enumerate(drawn):
        ids = encoded[index]
        if index in due and index in drawn[:place]:
            continue  # held out already
        rows = held_out if index in due else train
        for start in range(1, max(len(ids), 2), room):
            rows.append([ids[0], *ids[start : start + room]])
    drawn = dialogues.load(sources, config.mixture_weights, rng)
    train += [row.ids for row in dialogues.render_dialogues(tokenizer, drawn)]
    return train, held_out or train[:1]


@pytest.mark.parametrize("weight", [1.0, 0.6, 2.3])
def test_documents_are_split_shared_and_held_out_as_lists_would_be(
    tmp_path, inputs, weight, monkeypatch
):
    monkeypatch.setattr(documents, "NEAR_COPY", 1.0)  # the texts are nearly alike
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
    loaded = load_documents(config, ctx, tiny_tokenizer())
    expected = split_in_memory(config, tiny_tokenizer(), texts, weight, inputs["dialogues"])
    for segments, rows in zip((loaded.train, loaded.held_out), expected, strict=True):
        assert rows
        assert [segments.read(index)[0].tolist() for index in range(len(segments))] == rows


def test_unigram_loss_is_that_of_the_frequencies():
    import numpy as np

    rows = [{"labels": np.array([-100, 3, 3, 1, 9, -100])}]
    counts = np.array([0, 2, 0, 5])  # 9 was never seen
    total = 2 + 5 + 2 + 1
    expected = -sum(math.log(count / total) for count in (6, 6, 3, 1)) / 4
    assert validation.unigram_loss(rows, counts) == pytest.approx(expected)


def test_the_corpus_is_encoded_once_for_all_runs_of_a_store(tmp_path, inputs, monkeypatch):
    from llmstages.text import encode

    encode_rows = encode.encode_rows
    lines, encoded = [], []

    def recorded(tokenizer, texts):
        encoded.extend(texts)
        return encode_rows(tokenizer, texts)

    monkeypatch.setattr(encode, "encode_rows", recorded)
    for name in "ab":
        (tmp_path / name).mkdir()
        ctx = Context(
            "pretrain",
            tmp_path / name,
            tmp_path / name,
            {**inputs, "dialogues": ()},
            cache=tmp_path / "cache",
            say=lines.append,
        )
        load_documents(TINY, ctx, tiny_tokenizer())
    assert len(encoded) == len(TEXTS)
    told = [line for line in lines if line.startswith("tokens:")]
    assert "tokens: encoded" in told[0]
    assert "tokens: reused" in told[1]


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


def test_other_architectures_need_the_plain_initialization():
    config = CausalLMConfig(
        architecture="gpt2",
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    with pytest.raises(StageError, match="init=plain"):
        CausalLM().fresh(config, tiny_tokenizer())
    assert CausalLM().fresh(dc.replace(config, init="plain"), tiny_tokenizer())
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
