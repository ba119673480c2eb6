"""Packing: the rows are those of the plain algorithm, no token is lost, the counts are right."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from llmstages.data import packing, segments
from llmstages.data.packing import Packed, pack
from llmstages.data.segments import Segments, Tokens
from llmstages.text.render import Rendered


def plainly(rows, length, pad, seed, window=40):
    """The algorithm as it was first written, on lists: what plan() and Packed must give."""
    rng, cut = random.Random(seed), 0
    order = list(range(len(rows)))
    rng.shuffle(order)
    open_rows, used, full = [], [], []
    for index in order:
        cut += max(0, len(rows[index].ids) - length)
        item = Rendered(rows[index].ids[:length], rows[index].supervised[:length])
        fits = [i for i, size in enumerate(used) if size + len(item.ids) <= length]
        if fits:
            best = max(fits, key=used.__getitem__)
            open_rows[best].append(item)
            used[best] += len(item.ids)
        else:
            open_rows.append([item])
            used.append(len(item.ids))
            if len(open_rows) > window:
                worst = max(range(len(used)), key=used.__getitem__)
                full.append(open_rows.pop(worst))
                used.pop(worst)
    full += open_rows
    rng.shuffle(full)
    return [row_of(items, length, pad) for items in full], cut


def row_of(items, length, pad):
    ids, labels, positions = [], [], []
    for item in items:
        ids += item.ids
        labels += [t if on else -100 for t, on in zip(item.ids, item.supervised, strict=True)]
        labels[len(ids) - len(item.ids)] = -100
        positions += range(len(item.ids))
    rest = length - len(ids)
    return {
        "input_ids": ids + [pad] * rest,
        "labels": labels + [-100] * rest,
        "position_ids": positions + list(range(rest)),
    }


def documents(seed, count, longest):
    rng = random.Random(seed)
    return [
        Rendered(
            [1] + [rng.randrange(2, 90) for _ in range(n)],
            [True] + [rng.random() < 0.5 for _ in range(n)],
        )
        for n in (rng.randint(0, longest) for _ in range(count))
    ]


@pytest.mark.parametrize(
    "seed, count, longest, length",
    [
        (0, 0, 5, 8),
        (1, 1, 5, 8),
        (2, 30, 20, 32),
        (3, 3000, 31, 32),
        (4, 3000, 90, 64),
        (5, 2000, 3, 4),
        (6, 2000, 400, 256),
        (7, 1500, 200, 1024),
    ],
)
def test_rows_are_those_of_the_plain_algorithm(seed, count, longest, length):
    rows = documents(seed, count, longest)
    assert pack(rows, length, 0, seed) == plainly(rows, length, 0, seed)


@pytest.mark.parametrize("window", [1, 2, 7])
def test_the_plan_of_any_window_is_the_plain_one(window, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK", 64)  # sizes are read in chunks
    sizes = [random.Random(window).randint(1, 50) for _ in range(500)]
    order, bounds = packing.plan(np.array(sizes), 60, 3, window)
    rows = [Rendered([index + 1] * size, [True] * size) for index, size in enumerate(sizes)]
    expected = [
        [t - 1 for t in dict.fromkeys(row["input_ids"]) if t]
        for row in plainly(rows, 60, 0, 3, window)[0]
    ]
    assert [order[a:b].tolist() for a, b in pairwise(bounds)] == expected


def test_long_documents_are_split_and_nothing_is_lost():
    ids = np.arange(100, 200, dtype=np.uint16)
    lengths = [0, 7, 8, 30, 0, 55]
    starts = np.cumsum([0, *lengths[:-1]])
    pieces = Segments.cut(Tokens(ids, bos=1), starts, lengths, 7)
    read = [pieces.read(i)[0].tolist() for i in range(len(pieces))]
    assert all(piece[0] == 1 and len(piece) <= 8 for piece in read)
    assert [t for piece in read for t in piece[1:]] == ids.tolist()
    assert [len(piece) - 1 for piece in read] == [
        0,
        7,
        7,
        1,
        7,
        7,
        7,
        7,
        2,
        0,
        7,
        7,
        7,
        7,
        7,
        7,
        7,
        6,
    ]
    assert pieces.sizes().tolist() == [len(piece) for piece in read]


def test_counts_are_those_of_the_pieces_whatever_is_left_out_or_repeated(monkeypatch):
    monkeypatch.setattr(segments, "CHUNK", 37)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 20, 500).astype(np.uint16)
    edges = np.concatenate([[0], np.sort(rng.integers(0, 500, 30)), [500]])
    chosen = np.concatenate([np.arange(31), rng.integers(0, 31, 12)])[3:]
    corpus = Segments.cut(Tokens(ids, bos=1), edges[chosen], edges[chosen + 1] - edges[chosen], 9)
    spoken = Segments.of(documents(1, 40, 12))
    both = Segments.join([corpus, Segments.of([]), spoken, corpus.first(5)])
    rows = [both.read(i) for i in range(len(both))]
    assert len(both) == len(corpus) + 40 + 5
    assert both.sizes().tolist() == [len(ids) for ids, _ in rows]
    assert both.supervised().tolist() == [int(on.sum()) for _, on in rows]
    counted = Counter(t for ids, _ in rows for t in ids.tolist())
    assert {t: n for t, n in enumerate(both.counts().tolist()) if n} == counted
    for token in (1, 3, 19):
        assert both.occurrences(token).tolist() == [ids.tolist().count(token) for ids, _ in rows]
        assert both.begins_with(token).tolist() == [ids[0] == token for ids, _ in rows]
    assert both.occurrences(3, supervised=True).tolist() == [
        ids[on].tolist().count(3) for ids, on in rows
    ]


def test_corpora_and_dialogues_share_rows_as_lists_would():
    texts = [[5 + i % 50] * (i % 23) for i in range(300)]
    flat = np.array([t for text in texts for t in text], np.uint16)
    ends = np.cumsum([len(text) for text in texts])
    spoken = documents(2, 100, 20)
    both = Segments.join(
        [
            Segments.cut(
                Tokens(flat, bos=1), ends - [len(t) for t in texts], [len(t) for t in texts], 31
            ),
            Segments.of(spoken),
        ]
    )
    packed = Packed(both, 32, 0, 4)
    expected, cut = plainly(
        [*(Rendered([1, *t], [True] * (len(t) + 1)) for t in texts), *spoken], 32, 0, 4
    )
    assert [{k: v.tolist() for k, v in row.items() if k != "row"} for row in packed] == expected
    assert packed.cut == cut
    assert [row["input_ids"].tolist() for row in packed.first(5)] == [
        row["input_ids"] for row in expected[:5]
    ]
    assert len(packed.first(10**6)) == len(packed)
