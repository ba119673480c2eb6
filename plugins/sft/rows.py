"""Rows of training that are not packed: one dialogue a row, rows of like length in one batch, so that little is padded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from llmstages.chat import Rendered

BATCHES = 50  # so many are drawn together and sorted by length among themselves


def apart(rows: Sequence[Rendered], length: int) -> tuple[list[dict[str, list[int]]], int]:
    """(one row of input_ids, labels, position_ids a dialogue; tokens cut off beyond ``length``)."""
    cut = sum(max(0, len(row.ids) - length) for row in rows)
    out = []
    for row in rows:
        ids, on = row.ids[:length], row.supervised[:length]
        labels = [-100, *(token if said else -100 for token, said in zip(ids[1:], on[1:], strict=True))]  # nothing predicts the first token
        out.append({"input_ids": ids, "labels": labels, "position_ids": list(range(len(ids)))})
    return out, cut


def grouped(rows: Sequence[dict[str, Any]], batch: int, count: int, seed: int) -> list[int]:
    """Indices of ``count`` batches of rows of like length, in random order, a new draw in every pass."""
    rng, out = random.Random(seed), list[int]()
    while len(out) < count * batch:
        order = rng.sample(range(len(rows)), len(rows))
        some = [sorted(order[at : at + BATCHES * batch], key=lambda i: len(rows[i]["input_ids"])) for at in range(0, len(order), BATCHES * batch)]
        batches = [part[at : at + batch] for part in some for at in range(0, len(part), batch)]
        rng.shuffle(batches)
        out += [i for one in sorted(batches, key=lambda one: len(one) < batch) for i in one]  # a batch that is not full comes last
    return out[: count * batch]
