"""Pairs of a better and a worse answer on their way into training: rendered, measured, checked, split. For reward models and DPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.data.dialogues import Dialogue, Prepared
from llmstages.text import chat_format
from llmstages.text.render import render
from llmstages.train import checks
from llmstages.train.trainer import context_length, load_tokenizer

SIDES = ("chosen", "rejected")


@dataclass
class Pairs(Prepared):
    """Prepared rows, and the pairs they are the sides of. Each pair: prompt_ids, the ids of both whole sides (chosen_ids,
    rejected_ids), both rendered (chosen_rendered, ...), name, and the columns of its row."""

    train: Sequence[dict[str, Any]] = ()
    test: Sequence[dict[str, Any]] = ()


def prepare(
    model: Artifact, source: Artifact, max_length: int, test_fraction: float, ctx: Context
) -> Pairs:
    """Both sides of each pair as tokens; pairs with a side longer than ``max_length`` are dropped and counted."""
    tokenizer = load_tokenizer(model.path)
    rows = [
        dict(row, name=f"{source.name}:{i}")
        for i, row in enumerate(tables.load(source.path / "data"))
    ]
    sides = [
        Dialogue(f"{row['name']} {side}", [*row["prompt"], *row[side]])
        for side in SIDES
        for row in rows
    ]
    found = checks.check_dialogues(sides)
    checks.renderable(found, ctx)
    for row, ids in zip(
        rows, chat_format.prompt_ids(tokenizer, [row["prompt"] for row in rows]), strict=True
    ):
        row["prompt_ids"] = ids
    for side in SIDES:
        for row, done in zip(
            rows, render(tokenizer, [[*row["prompt"], *row[side]] for row in rows]), strict=True
        ):
            row[f"{side}_ids"], row[f"{side}_rendered"] = done.ids, done
    long = [
        row["name"] for row in rows if max(len(row[f"{side}_ids"]) for side in SIDES) > max_length
    ]
    if long:
        ctx.say(
            f"{ctx.step}: {len(long)} of {len(rows)} pairs dropped, longer than max_length={max_length} tokens"
        )
    left_out = set(long)
    train, test = split([row for row in rows if row["name"] not in left_out], test_fraction)
    if not train:
        raise StageError(
            f"{ctx.step}: no preference pair is left to train on; raise {ctx.step}.max_length or look at {source.name}"
        )
    rendered = [
        (f"{row['name']} {side}", row[f"{side}_rendered"]) for side in SIDES for row in train
    ]
    names, done = [name for name, _ in rendered], [one for _, one in rendered]
    found += [
        checks.check_left_out(long, len(rows), "raise max_length"),
        *checks.check_rows(done, tokenizer, names, context=context_length(model)),
        *checks.check_dialogue_template(sides, tokenizer),
        *checks.check_model(model.path, tokenizer),
    ]
    return Pairs(
        tokenizer,
        done,
        names,
        found,
        {"pairs": len(rows), "dropped, too long": len(long)},
        train=train,
        test=test,
    )


def split(
    rows: Sequence[dict[str, Any]], share: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(train, test): by the column ``split`` where it is given, else every n-th pair is kept for measuring."""
    if any(row.get("split") == "test" for row in rows):
        return [r for r in rows if r.get("split") != "test"], [
            r for r in rows if r.get("split") == "test"
        ]
    every = max(2, round(1 / share)) if share else len(rows) + 1
    return [r for i, r in enumerate(rows) if i % every], [
        r for i, r in enumerate(rows) if i % every == 0
    ]
