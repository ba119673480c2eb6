"""Rows of training that are not packed: one dialogue a row, rows of like length in one batch, so that little is padded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from llmstages.text.render import Rendered

BATCHES = 50  # so many are drawn together and sorted by length among themselves


def apart(rows: Sequence[Rendered], length: int) -> tuple[list[dict[str, list[int]]], int]:
    """(one row of input_ids, labels, position_ids a dialogue; tokens cut off beyond ``length``)."""
    cut = sum(max(0, len(row.ids) - length) for row in rows)
    out = []
    for row in rows:
        ids, on = row.ids[:length], row.supervised[:length]
        labels = [
            token if said and at else -100
            for at, (token, said) in enumerate(zip(ids, on, strict=True))
        ]  # nothing predicts the first token
        out.append({"input_ids": ids, "labels": labels, "position_ids": list(range(len(ids)))})
    return out, cut


def grouped(rows: Sequence[dict[str, Any]], batch: int, count: int, seed: int) -> list[int]:
    """Indices of ``count`` batches of rows of like length, in random order, a new draw in every pass."""
    rng, out, waiting = random.Random(seed), list[int](), list[int]()
    block = batch * min(
        BATCHES, max(1, len(rows) // batch)
    )  # no row twice in a block, but at the seam of two passes
    while len(out) < count * batch:
        while len(waiting) < block:
            waiting += rng.sample(range(len(rows)), len(rows))
        some, waiting = (
            sorted(waiting[:block], key=lambda i: len(rows[i]["input_ids"])),
            waiting[block:],
        )
        batches = [some[at : at + batch] for at in range(0, block, batch)]
        rng.shuffle(batches)
        out += [i for one in batches for i in one]
    return out[: count * batch]
