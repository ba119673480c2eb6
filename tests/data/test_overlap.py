"""Overlap of held-out documents with training: the counts of plain loops over n-grams."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llmstages.data import overlap
from llmstages.data.overlap import NGRAM, HeldOutNgrams
from llmstages.data.segments import Segments, Tokens
from llmstages.text.render import Rendered


def texts(seed, count, longest, vocabulary=3):
    rng = random.Random(seed)
    return [
        [rng.randrange(vocabulary) for _ in range(rng.randint(0, longest))] for _ in range(count)
    ]


def segments(documents, room=10_000, bos=None):
    """The documents as they stand in a corpus: one flat array of ids."""
    flat = np.array([token for text in documents for token in text], np.uint16)
    lengths = [len(text) for text in documents]
    starts = np.cumsum([0, *lengths])[: len(lengths)]
    return Segments.cut(Tokens(flat, bos=bos), starts, lengths, room)


def ngrams(text):
    return [tuple(text[place : place + NGRAM]) for place in range(len(text) - NGRAM + 1)]


@pytest.mark.parametrize("chunk", [1 << 22, 13])
@pytest.mark.parametrize("seed", range(4))
def test_shares_are_those_of_plain_loops(seed, chunk, monkeypatch):
    monkeypatch.setattr(overlap, "CHUNK", chunk)
    trained, held_out = texts(seed, 40, 60), texts(seed + 100, 12, 40)
    held_out[3] = trained[5]
    index = HeldOutNgrams(segments(held_out, bos=9))
    index.mark(segments(trained, bos=9))
    known = {gram for text in trained for gram in ngrams(text)}
    shares, every = [], []
    for text in held_out:
        found = [gram in known for gram in ngrams(text)]
        shares.append(sum(found) / max(1, len(found)))
        every += found
    assert index.shares().tolist() == pytest.approx(shares)
    assert index.share() == pytest.approx(sum(every) / len(every))
    assert 0 < index.share() < 1


def test_an_ngram_over_the_border_of_two_documents_is_none():
    text = list(range(20, 20 + 2 * NGRAM))
    index = HeldOutNgrams(segments([text]))
    index.mark(segments([text[:NGRAM], text[NGRAM:]]))
    assert index.share() == pytest.approx(2 / (NGRAM + 1))


def test_only_the_documents_that_are_named_count():
    text = list(range(30))
    corpus = segments([text, [40] * 30])
    index = HeldOutNgrams(corpus.first(1))
    index.mark(corpus.after(1))
    assert index.share() == 0.0
    index.mark(Segments.of([Rendered([7, *text], [True] * 31)]))
    assert index.share() == 1.0


def test_nothing_held_out_and_nothing_trained():
    empty = HeldOutNgrams(Segments.of([]))
    empty.mark(segments([[1] * 30]))
    assert empty.share() == 0.0
    assert len(empty.shares()) == 0
    short = HeldOutNgrams(segments([[1, 2], []]))
    short.mark(Segments.of([]))
    assert short.shares().tolist() == [0.0, 0.0]
