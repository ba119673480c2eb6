"""Which rows each update trains on: full batches, every row as often as any other."""

from __future__ import annotations

from collections import Counter

import pytest

from llmstages.plugins.sft.rows import length_grouped_order
from llmstages.train.passes import OrderedRows, row_order, updates_of

COUNTS = [(1, 4), (3, 4), (5, 4), (9, 8), (20, 1), (20, 3), (20, 19), (33, 32), (64, 16)]


@pytest.mark.parametrize(("rows", "batch_size"), COUNTS)
@pytest.mark.parametrize("passes", [0.5, 1.0, 1.8, 3.0, 20.0])
def test_rows_are_trained_as_often_as_asked_and_equally_often(rows, batch_size, passes):
    updates = updates_of(rows, passes, batch_size)
    order = row_order(rows, updates, batch_size, seed=0).tolist()
    assert len(order) == updates * batch_size
    assert 0 <= len(order) - passes * rows < batch_size + 1
    times = Counter(order)
    assert max(times.values()) - min(times[row] for row in range(rows)) <= 1


@pytest.mark.parametrize(("rows", "batch_size"), COUNTS)
@pytest.mark.parametrize("updates", [1, 2, 7, 40])
def test_rows_by_length_are_the_same_rows(rows, batch_size, updates):
    texts = [{"input_ids": [0] * (row % 7 + 1)} for row in range(rows)]
    order = length_grouped_order(texts, batch_size, updates, seed=1)
    plain = row_order(rows, updates, batch_size, seed=1).tolist()
    assert Counter(order) == Counter(plain)


def test_each_pass_has_an_order_of_its_own_which_follows_from_the_seed():
    order = row_order(50, 15, 10, seed=3).tolist()
    passes = [order[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(rows) == list(range(50)) for rows in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert row_order(50, 15, 10, seed=3).tolist() == order != row_order(50, 15, 10, 4).tolist()
    # A longer training begins as a shorter one.
    assert row_order(50, 7, 10, seed=3).tolist() == order[:70]


def test_a_limit_of_rows_ends_the_training():
    assert updates_of(100, 4.0, 10, most_rows=95) == 10
    assert updates_of(100, 0.5, 10, most_rows=95) == 5
    assert updates_of(30, 0.1, 1) == 3  # 0.1 * 30 is a little more than 3


def test_ordered_rows_are_read_when_they_are_asked_for():
    asked = []

    class Rows:
        def __getitem__(self, number):
            asked.append(number)
            return {"row": number}

    ordered = OrderedRows(Rows(), row_order(4, 2, 4, seed=0))
    assert len(ordered) == 8
    assert not asked
    assert sorted(ordered[place]["row"] for place in range(4)) == [0, 1, 2, 3]
    assert len(asked) == 4
