"""Pairs of a better and a worse answer, rendered, checked and split; for reward models and DPO."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option
from llmstages.data import tables
from llmstages.data.dialogues import Dialogue, Prepared, render_dialogues
from llmstages.data.splits import choose_tests, comparable
from llmstages.text import chat_format
from llmstages.text.messages import with_tools
from llmstages.train import dialogue_checks, template_checks, token_checks
from llmstages.train.adapters import LoraOptions
from llmstages.train.arguments import Optimization
from llmstages.train.trainer import context_length, load_tokenizer

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class PairOptions(LoraOptions, Optimization):
    """Options of every stage that learns from pairs."""

    batch_size: int = option(16, "pairs in one update")
    warmup_steps: int = option(10, "updates of linear warm-up")
    epochs: float = option(2.0, "passes over the pairs", gt=0)
    max_length: int = option(512, "pairs with a longer side (tokens) are dropped and counted", ge=1)
    test_fraction: float = option(
        0.1,
        "share of the pairs kept for measuring if none are marked split=test",
        ge=0,
        le=0.5,
        renamed_from="test_share",
    )


@dataclass
class Pairs(Prepared):
    """Prepared rows, and the pairs of which they are the sides.

    Each pair has the columns of its row, and in addition: name; prompt_ids; chosen_ids and
    rejected_ids, the ids of both whole sides; chosen_rendered and rejected_rendered, both sides
    with their loss mask.
    """

    train: Sequence[dict[str, Any]] = ()
    test: Sequence[dict[str, Any]] = ()


def prepare(
    model: Artifact, source: Artifact, max_length: int, test_fraction: float, ctx: Context
) -> Pairs:
    """Render and check both sides of each pair.

    Args:
        model: gives the tokenizer and the context length.
        source: preferences.
        max_length: pairs with a side of more tokens are dropped and counted.
        test_fraction: share of the pairs that is kept for measuring, see ``split``.
        ctx: where the step runs.

    Raises:
        StageError: messages cannot be rendered, or no pair is left to train on.
    """
    tokenizer = load_tokenizer(model.path)
    pairs = [
        _with_schemas(dict(row, name=f"{source.name}:{number}"))
        for number, row in enumerate(tables.load(source.path / "data"))
    ]
    dialogues = [
        # What is compared is the last answer, after the prompt that the model would get for it.
        Dialogue(f"{pair['name']} {side}", [*pair["prompt"], *pair[side]], one_answer=True)
        for side in SIDES
        for pair in pairs
    ]
    # One chosen answer may stand against several rejected ones: only a whole pair is a repetition.
    checks = dialogue_checks.check_dialogues(dialogues, _repeated(pairs))
    dialogue_checks.require_renderable(checks, ctx)
    _render_sides(pairs, dialogues, tokenizer)
    too_long = {pair["name"] for pair in pairs if _longest_side(pair) > max_length}
    if too_long:
        ctx.say(
            f"{ctx.step}: {len(too_long)} of {len(pairs)} pairs dropped, longer than "
            f"max_length={max_length} tokens"
        )
    equal = {pair["name"] for pair in pairs if pair["chosen_ids"] == pair["rejected_ids"]}
    if equal:
        ctx.say(
            f"{ctx.step}: {len(equal)} of {len(pairs)} pairs dropped, whose sides are the same "
            "tokens once they are rendered"
        )
    contradicting = _contradicting([pair for pair in pairs if pair["name"] not in equal])
    if contradicting:
        ctx.say(
            f"{ctx.step}: {len(contradicting)} of {len(pairs)} pairs dropped, which rank the same "
            "two answers in both ways"
        )
    usable = [pair for pair in pairs if pair["name"] not in too_long | equal | contradicting]
    train, test = split(usable, test_fraction)
    shared = len(usable) - len(train) - len(test)
    if shared:
        ctx.say(
            f"{ctx.step}: {shared} of {len(usable)} pairs dropped, whose prompt is that of a pair "
            "marked split=test"
        )
    if not train:
        raise StageError(
            f"{ctx.step}: no preference pair is left to train on; raise {ctx.step}.max_length or "
            f"look at {source.name}"
        )
    if not test and test_fraction:
        ctx.say(f"{ctx.step}: no pair is kept for measuring, since all have the same prompt")
    # Each side of a pair is a row of its own in the checks.
    names = [f"{pair['name']} {side}" for side in SIDES for pair in train]
    rows = [pair[f"{side}_rendered"] for side in SIDES for pair in train]
    dropped = [pair["name"] for pair in pairs if pair["name"] in too_long]
    checks += [
        dialogue_checks.check_left_out(dropped, len(pairs), "raise max_length"),
        *token_checks.check_rows(rows, tokenizer, names, context=context_length(model)),
        *template_checks.check_dialogue_template(dialogues, tokenizer),
        *token_checks.check_model(model.path, tokenizer),
    ]
    counts = {
        "pairs": len(pairs),
        "dropped, too long": len(dropped),
        "dropped, equal": len(equal),
        "dropped, contradicting": len(contradicting),
    }
    return Pairs(tokenizer, rows, names, checks, counts, train=train, test=test)


def _render_sides(
    pairs: Sequence[dict[str, Any]], dialogues: Sequence[Dialogue], tokenizer: Any
) -> None:
    """Add the tokens of the prompt and of both sides to each pair.

    dialogues: the chosen sides of all pairs, then the rejected ones.
    """
    prompts = chat_format.prompt_ids(tokenizer, [pair["prompt"] for pair in pairs])
    for pair, ids in zip(pairs, prompts, strict=True):
        pair["prompt_ids"] = ids
    rendered = iter(render_dialogues(tokenizer, dialogues))
    for side in SIDES:
        for pair in pairs:
            row = next(rendered)
            pair[f"{side}_ids"] = row.ids
            pair[f"{side}_rendered"] = row


def _with_schemas(pair: dict[str, Any]) -> dict[str, Any]:
    """A pair with the schemas of its tools in the prompt, as at inference."""
    pair["prompt"] = list(with_tools(pair["prompt"], pair.get("tools") or ""))
    return pair


def _repeated(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of pairs that equal an earlier one, each with the name of the earlier one."""
    first_name: dict[str, str] = {}
    repeated = []
    for pair in pairs:
        key = json.dumps([pair["prompt"], pair["chosen"], pair["rejected"]], default=str)
        first = first_name.setdefault(key, pair["name"])
        if first != pair["name"]:
            repeated.append(f"{pair['name']} (as {first})")
    return repeated


def _contradicting(pairs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of pairs whose chosen answer is the rejected one of another, and the reverse."""
    by_answers: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for pair in pairs:
        sides = (tuple(pair["chosen_ids"]), tuple(pair["rejected_ids"]))
        by_answers.setdefault(sides, []).append(pair["name"])
    return {
        name
        for (chosen, rejected), names in by_answers.items()
        if (rejected, chosen) in by_answers
        for name in names
    }


def _longest_side(pair: dict[str, Any]) -> int:
    return max(len(pair[f"{side}_ids"]) for side in SIDES)


def split(
    rows: Sequence[dict[str, Any]], share: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs for training and pairs for test, never with the same prompt.

    The column ``split`` decides if it marks test rows; pairs for training that have the prompt of
    one of these are in neither. Else about ``share`` of the pairs are for test (splits.py).
    """
    keys = [_prompt_key(row) for row in rows]
    if any(row.get("split") == "test" for row in rows):
        is_test = [row.get("split") == "test" for row in rows]
    else:
        is_test = choose_tests(keys, share)
    test_keys = {key for key, chosen in zip(keys, is_test, strict=True) if chosen}
    pairs = list(zip(rows, keys, is_test, strict=True))
    train = [row for row, key, chosen in pairs if not chosen and key not in test_keys]
    return train, [row for row, _, chosen in pairs if chosen]


def _prompt_key(row: Mapping[str, Any]) -> str:
    """The prompt of a pair, without what does not make it another one."""
    turns = [(turn["role"], comparable(turn["content"])) for turn in row["prompt"]]
    return json.dumps(turns, ensure_ascii=False)
