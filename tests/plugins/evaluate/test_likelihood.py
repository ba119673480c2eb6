"""Bits per byte: the same numbers as from all scores, with much less of them in memory."""

from __future__ import annotations

import math

import pytest

from llmstages.plugins.evaluate import likelihood
from llmstages.text import batching, chat_format
from llmstages.train import token_losses
from tests.tiny import tiny_model, tiny_tokenizer

PAIRS = [
    ("Where does the fox live?", " The fox lives near the river."),
    ("the cat sat on", " the mat"),
    ("Bo Li was born in", " Ra."),
    ("", "the dog ran far."),
    ("the cat sat on the mat. the dog ran far. " * 2, "Bo Li"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model(tokenizer)


def reference(model, tokenizer, text, rest):
    """From the definition, for one pair alone."""
    import torch

    ids = chat_format.document_ids(tokenizer, [text + rest])[0]
    before = chat_format.document_ids(tokenizer, [text])[0]
    shared = [one == other for one, other in zip(ids, before, strict=False)]
    first = shared.index(False) if False in shared else len(shared)
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    nats = -sum(float(scores[i - 1, ids[i]]) for i in range(max(1, first), len(ids)))
    return nats / math.log(2) / len(rest.encode())


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_bits_are_those_of_each_pair_alone(model, tokenizer, batch):
    done = []
    bits = likelihood.bits_per_byte(model, tokenizer, PAIRS, batch, done.append)
    expected = [reference(model, tokenizer, *pair) for pair in PAIRS]
    assert bits == pytest.approx(expected, abs=1e-4) and sum(done) == len(PAIRS)


def test_little_memory_changes_nothing(model, tokenizer, monkeypatch):
    plain = likelihood.bits_per_byte(model, tokenizer, PAIRS, 64, lambda n: None)
    monkeypatch.setattr(batching, "free_memory", lambda device: 1)
    sizes = []
    monkeypatch.setattr(
        token_losses,
        "batch_losses",
        lambda *args, plain=token_losses.batch_losses: sizes.append(len(args[2])) or plain(*args),
    )
    assert likelihood.bits_per_byte(model, tokenizer, PAIRS, 64, lambda n: None) == pytest.approx(
        plain, abs=1e-5
    )
    assert sizes == [1] * len(PAIRS)


def test_scores_are_computed_for_continuations_alone(model, tokenizer, monkeypatch):
    kept = []
    plain = model.forward

    def forward(*args, logits_to_keep=0, **kwargs):
        kept.append((kwargs["input_ids"].shape[1], logits_to_keep))
        return plain(*args, logits_to_keep=logits_to_keep, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    pair = ("the cat sat on the mat. the dog ran far. " * 2, "Bo")
    likelihood.bits_per_byte(model, tokenizer, [pair], 1, lambda n: None)
    (width, logits_to_keep) = kept[0]
    assert 1 < logits_to_keep < width / 4
