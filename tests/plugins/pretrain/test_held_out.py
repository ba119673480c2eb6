"""Held out is held out: near copies, other corpora and weights; and where documents end."""

from __future__ import annotations

import dataclasses as dc

import numpy as np
import pytest

from llmstages.core.stage import Context
from llmstages.data.overlap import seen_share
from llmstages.data.packing import Packed
from llmstages.data.segments import Segments, Tokens
from llmstages.plugins.pretrain import documents, throughput, validation
from llmstages.plugins.pretrain.causal_lm import CausalLM
from llmstages.plugins.pretrain.documents import load_documents
from llmstages.text import chat_format
from tests.plugins.pretrain.test_causal_lm import TINY
from tests.tiny import perform, saved, tiny_tokenizer

# Texts that have hardly an n-gram in common.
DIFFERENT = [
    " ".join(chr(97 + (n * k) % 26) * (1 + n % 3) for k in range(30)) for n in range(1, 41)
]


def load(tmp_path, texts, config=TINY, **more):
    """(documents, said lines) of corpora given as lists of texts by name."""
    corpora = []
    for name, own in {"corpus": texts, **more}.items():
        rows = [{"id": str(i), "url": "u", "text": text} for i, text in enumerate(own)]
        corpora.append(saved(tmp_path / name, "corpus", rows))
    said: list[str] = []
    inputs = {"corpus": tuple(corpora), "dialogues": ()}
    ctx = Context("pretrain", tmp_path, tmp_path, inputs, say=said.append)
    return load_documents(config, ctx, tiny_tokenizer()), said


def texts_of(segments):
    tokenizer = tiny_tokenizer()
    return [chat_format.decode(tokenizer, segments.ids(i)) for i in range(len(segments))]


CONFIG = dc.replace(TINY, validation_stride=10, max_length=128)


def test_a_near_copy_is_trained_on_and_not_held_out(tmp_path):
    texts = list(DIFFERENT)
    texts[19] = f"{texts[4]} in 2026"
    loaded, said = load(tmp_path, texts, CONFIG)
    assert texts[19] in texts_of(loaded.train)
    assert len(loaded.held_out) == 3
    assert any("1 of 4 held-out documents are trained on instead" in line for line in said)
    assert seen_share(loaded.held_out, loaded.train) < 0.5


def test_a_near_copy_in_another_corpus_counts_too(tmp_path):
    loaded, said = load(tmp_path, DIFFERENT, CONFIG, other=[f"2026 {DIFFERENT[9]}", "short"])
    assert DIFFERENT[9] in texts_of(loaded.train)
    assert any("trained on instead" in line for line in said)


def test_where_all_are_near_copies_they_stay_and_the_share_is_told(tmp_path):
    texts = [f"{number} {DIFFERENT[0]} {number}" for number in range(40)]
    loaded, said = load(tmp_path, texts, CONFIG)
    assert len(loaded.held_out) == 4
    assert seen_share(loaded.held_out, loaded.train) > 0.5
    assert any("the validation loss is partly of memory" in line for line in said)


@pytest.mark.parametrize("weight", [2.0, 2.5])
def test_a_weight_above_1_holds_out_documents_all_the_same(tmp_path, weight):
    config = dc.replace(CONFIG, mixture_weights={"corpus": weight})
    loaded, _ = load(tmp_path, DIFFERENT, config)
    trained, held_out = texts_of(loaded.train), texts_of(loaded.held_out)
    assert len(held_out) == len(set(held_out)) == 4
    assert not set(held_out) & set(trained)
    assert len(trained) >= (weight - 0.5) * len(DIFFERENT) - len(held_out) * 3


def test_no_more_is_held_out_than_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_HELD_OUT", 60)
    config = dc.replace(CONFIG, validation_stride=2)
    loaded, said = load(tmp_path, DIFFERENT, config)
    assert 1 <= len(loaded.held_out) < 20
    assert len(loaded.held_out) + len(loaded.train) == 40
    assert any("are held out, which is enough" in line for line in said)


def test_the_share_is_a_metric_beside_the_loss(tmp_path, inputs):
    _, metrics = perform(CausalLM, tmp_path / "one", dc.replace(TINY, epochs=0.2), **inputs)
    assert 0 < metrics["validation_seen"] <= 1


# The end of a document is a target.


def packed(texts, length=12, end=99):
    flat = np.array([token for text in texts for token in text], np.uint16)
    lengths = [len(text) for text in texts]
    starts = np.cumsum([0, *lengths[:-1]])
    cut = Segments.cut(Tokens(flat, bos=1, end=end), starts, lengths, length - 1)
    return Packed(cut, length, 0, seed=0)


def test_the_token_behind_the_last_one_of_a_document_is_its_end():
    rows = packed([[5, 6, 7], [8, 9]], length=12)
    row = rows[0]
    ids, labels = row["input_ids"].tolist(), row["labels"].tolist()
    for last in (7, 9):
        assert labels[ids.index(last) + 1] == 99
    assert 99 not in ids
    assert labels.count(99) == rows.documents() == 2


def test_the_end_of_a_part_is_not_the_end_of_its_document_and_a_full_row_has_none():
    rows = packed([[*range(10, 32)]], length=12)
    assert len(rows) == 2  # 22 ids in two parts of 11: both rows are full
    assert all(99 not in row["labels"] for row in rows)
    rows = packed([[*range(10, 31)]], length=12)
    ends = [row["input_ids"].tolist() for row in rows if 99 in row["labels"]]
    assert [30 in ids for ids in ends] == [True]
    assert rows.segments.counts()[99] == 1


def test_a_base_model_learns_to_end(tmp_path, inputs):
    import torch

    from llmstages.train.trainer import load_model

    config = dc.replace(TINY, max_length=80, epochs=12.0)
    made, _ = perform(CausalLM, tmp_path / "one", config, **inputs)
    model, tokenizer = load_model(made, None).eval(), tiny_tokenizer()
    text = "Where does the fox live? The fox lives near the river. 12+34=46  "
    ids = chat_format.document_ids(tokenizer, [f"{text}3"])[0]
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].softmax(-1)
    end = scores[:, chat_format.document_end(tokenizer)]
    assert end[-1] > 20 * end[:-2].mean()


# Bits per byte without the invented blank.


def test_bytes_are_those_of_the_texts():
    tokenizer = tiny_tokenizer()
    texts = ["Hi.", "Yes, it is.", " begins with a blank"] * 5
    encoded = [np.array(ids) for ids in chat_format.encode_texts(tokenizer, texts)]
    bos, end = tokenizer.bos_token_id, chat_format.document_end(tokenizer)
    lengths = [len(ids) for ids in encoded]
    starts = np.cumsum([0, *lengths[:-1]])
    flat = np.concatenate(encoded).astype(np.uint16)
    cut = Segments.cut(Tokens(flat, bos=bos, end=end), starts, lengths, 63)
    rows = Packed(cut, 64, tokenizer.pad_token_id, seed=0)
    tokens = sum(int((row["labels"] != -100).sum()) for row in rows)
    ratio = validation.tokens_per_byte(rows, tokenizer, rows.documents())
    assert ratio == pytest.approx(tokens / sum(len(text.encode()) for text in texts))


# FLOPs per token.


@pytest.mark.parametrize("kind", sorted(throughput.DENSE))
def test_flops_are_those_that_torch_counts(kind):
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 512,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if "head_dim" in AutoConfig.for_model(kind).to_dict():
        sizes["head_dim"] = 64  # not hidden / heads
    if kind == "gpt2":
        sizes |= {"n_inner": 256, "n_positions": 128}
    config = AutoConfig.for_model(kind, **sizes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ids = torch.randint(3, 500, (1, 64))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    counted = counter.get_total_flops() / 64
    assert throughput.flops_per_token(model, 64) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "mamba"])
def test_flops_of_other_architectures_are_not_reported(kind):
    from types import SimpleNamespace

    from transformers import AutoConfig

    model = SimpleNamespace(config=AutoConfig.for_model(kind))
    assert throughput.flops_per_token(model, 64) is None


# Dropout of a new model is what its option says.


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox"])
def test_a_new_model_has_the_dropout_of_its_option(architecture, dropout):
    config = dc.replace(TINY, architecture=architecture, init="plain", dropout=dropout)
    shape = CausalLM().fresh(config, tiny_tokenizer()).config.to_dict()
    shares = {name: value for name, value in shape.items() if "drop" in name}
    assert shares
    assert set(shares.values()) == {dropout}
