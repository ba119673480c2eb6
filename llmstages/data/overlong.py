"""Dialogues that are longer than a row may be: dropped, split, cut, or an error, each counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data.dialogues import Dialogue, render_dialogues, some_names
from llmstages.text.messages import Message
from llmstages.text.render import Rendered

POLICIES = ("drop", "split", "truncate", "error")


def fit_length(
    dialogues: Sequence[Dialogue], tokenizer: Any, max_length: int, policy: str, ctx: Context
) -> tuple[list[Dialogue], list[Rendered], list[str]]:
    """Make all dialogues fit into ``max_length`` tokens, and report what was done with examples.

    policy: what happens to longer ones.
        drop: they are left out.
        split: they are cut between exchanges, each part with the system turn; an exchange that is
            too long alone is left out.
        truncate: their end is cut off.
        error: StageError.

    Returns:
        (dialogues, their rows, names of the dialogues left out).
    """
    rows = render_dialogues(tokenizer, dialogues)
    long = [
        dialogue.name
        for dialogue, row in zip(dialogues, rows, strict=True)
        if len(row.ids) > max_length
    ]
    if not long:
        return list(dialogues), rows, []
    summary = (
        f"{len(long)} of {len(rows)} dialogues are longer than max_length={max_length} tokens "
        f"({some_names(long)})"
    )
    if policy == "error":
        raise StageError(
            f"{ctx.step}: {summary}; raise {ctx.step}.max_length or choose "
            f"{ctx.step}.overlong=drop, split or truncate"
        )
    kept: list[tuple[Dialogue, Rendered]] = []
    dropped: list[str] = []
    split_parts = 0
    for dialogue, row in zip(dialogues, rows, strict=True):
        if len(row.ids) <= max_length:
            kept.append((dialogue, row))
            continue
        parts = []
        if policy == "truncate":
            shorter = Rendered(row.ids[:max_length], row.supervised[:max_length])
            parts = [(dialogue, shorter)]
        elif policy == "split":
            parts = split(dialogue, tokenizer, max_length)
            split_parts += len(parts)
        kept += parts
        if not parts:
            dropped.append(dialogue.name)
    action = {
        "drop": "dropped",
        "truncate": "cut at their end",
        "split": f"split into {split_parts}, {len(dropped)} of them dropped whole",
    }[policy]
    ctx.say(f"{ctx.step}: {summary}: {action} (overlong={policy})")
    return [dialogue for dialogue, _ in kept], [row for _, row in kept], dropped


def split(dialogue: Dialogue, tokenizer: Any, max_length: int) -> list[tuple[Dialogue, Rendered]]:
    """Parts of a dialogue, each as many whole exchanges as fit into ``max_length`` tokens.

    An exchange is a user turn and what follows it. The system turn begins each part. Exchanges
    that are too long alone are left out, and so is a dialogue of which one answer is trained.
    """
    if dialogue.one_answer:
        return []
    system, exchanges = _exchanges(dialogue.messages)
    parts: list[tuple[Dialogue, Rendered]] = []
    current: list[Message] = []
    current_row: Rendered | None = None

    def attempt(messages: Sequence[Message]) -> Rendered | None:
        candidate = Dialogue("", [*system, *messages], dialogue.plain)
        row = render_dialogues(tokenizer, [candidate])[0]
        return row if len(row.ids) <= max_length else None

    def close() -> None:
        # What is left of a dialogue may hold no answer that is trained on.
        if current_row and any(current_row.supervised):
            name = f"{dialogue.name}/{len(parts) + 1}"
            part = Dialogue(name, [*system, *current], dialogue.plain)
            parts.append((part, current_row))

    for exchange in exchanges:
        longer_row = attempt([*current, *exchange])
        if longer_row:
            current += exchange
            current_row = longer_row
            continue
        close()
        current_row = attempt(exchange)
        current = list(exchange) if current_row else []
    close()
    return parts


def _exchanges(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """(the system turn if there is one, exchanges)."""
    system = [turn for turn in messages[:1] if turn["role"] == "system"]
    exchanges: list[list[Message]] = []
    for turn in messages[len(system) :]:
        if turn["role"] == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(turn)
    return system, exchanges
