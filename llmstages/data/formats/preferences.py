"""Pairs of a better and a worse answer to the same question."""

from __future__ import annotations

from collections import Counter

from llmstages.data.formats.dialogues import ASKED, TURNS, check_turns
from llmstages.data.formats.turn_fields import refuse_media
from llmstages.data.formats.turns import (
    InvalidRow,
    Message,
    Row,
    as_messages,
    field_names,
    first_filled,
)
from llmstages.text.messages import message

SIDES = ("chosen", "rejected")


def preference(row: Row, left_out: Counter[str] | None = None) -> dict[str, list[Message]]:
    """The prompt and both answers of a row: {prompt, chosen, rejected}, each a list of messages.

    A row holds two HH texts, a prompt with two answers, or two whole conversations. What both
    conversations begin with is the prompt; chosen and rejected are what follows. Raises
    InvalidRow if the row cannot be used; left_out counts what is left out of usable rows.
    """
    if left_out is None:
        left_out = Counter()
    for name in SIDES:
        if row.get(name) is None:
            raise InvalidRow(
                "format", f"the field {name} is missing; the row has {field_names(row)}"
            )
    refuse_media(row, "the row")
    prompt = _prompt(row, left_out)
    conversations = []
    for name in SIDES:
        answer = _without_marks(as_messages(row[name], "assistant", left_out), left_out)
        # UltraFeedback repeats the prompt in both answers.
        is_whole = bool(answer) and answer[0]["role"] != "assistant"
        conversations.append(answer if is_whole else prompt + answer)
    chosen, rejected = (check_turns(messages, left_out) for messages in conversations)
    if chosen == rejected:
        raise InvalidRow("equal", "chosen and rejected are the same")
    shared = _shared_turns(chosen, rejected)
    if not any(turn["role"] == "user" for turn in chosen[:shared]):
        raise InvalidRow("no_question", "chosen and rejected do not answer the same question")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _without_marks(messages: list[Message], left_out: Counter[str]) -> list[Message]:
    """The messages without marks of loss: what is compared is the last answer, in any case."""
    kept = []
    for turn in messages:
        if "loss" in turn:
            left_out["loss marks of turns"] += 1
            turn = {key: value for key, value in turn.items() if key != "loss"}
        kept.append(turn)
    return kept


def _shared_turns(chosen: list[Message], rejected: list[Message]) -> int:
    """How many turns both begin with, such that an answer follows in both."""
    shorter = min(len(chosen), len(rejected))
    shared = 0
    while shared < shorter and chosen[shared] == rejected[shared]:
        shared += 1
    while shared:
        if shared < shorter:
            roles = {chosen[shared]["role"], rejected[shared]["role"]}
            if roles == {"assistant"}:
                break
        shared -= 1
    return shared


def _prompt(row: Row, left_out: Counter[str]) -> list[Message]:
    """The prompt of a row; [] if the answers hold it."""
    messages: list[Message] = []
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        messages.append(message("system", system))
    name = first_filled(row, (*TURNS, *ASKED))
    if not name:
        return messages
    question = _without_marks(as_messages(row[name], "user", left_out), left_out)
    if name == "instruction" and row.get("input"):
        question = [message("user", f"{row['instruction']}\n{row['input']}")]
    return messages + question
