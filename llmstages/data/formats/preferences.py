"""Pairs of a better and a worse answer to the same question."""

from __future__ import annotations

from collections import Counter
from typing import Any

from llmstages.data.formats.dialogues import ASKED, TURNS, check_turns, history
from llmstages.data.formats.errors import SHOWN
from llmstages.data.formats.schemas import schemas
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


def preference(row: Row, left_out: Counter[str] | None = None) -> dict[str, Any]:
    """A row of a preferences table.

    A row holds two HH texts, a prompt with two answers, or two whole conversations. What both
    conversations begin with is the prompt; chosen and rejected are what follows.

    Args:
        row: a row of a data set.
        left_out: counts what is left out of usable rows, by name.

    Raises:
        InvalidRow: the row cannot be used.

    Returns:
        prompt, chosen, rejected: lists of messages.
        Only where the row has them: tools, the schemas of the tools that the assistant had, as JSON
        text; margin, by how much the chosen answer is better (Llama 2, section 3.2.2); split; kind.
    """
    if left_out is None:
        left_out = Counter()
    for name in SIDES:
        if row.get(name) is None:
            raise InvalidRow(
                "format", f"the field {name} is missing; the row has {field_names(row)}"
            )
    refuse_media(row, "the row")
    _check_scores(row)
    prompt = _prompt(row, left_out)
    conversations = []
    for name in SIDES:
        answer = _without_marks(as_messages(row[name], "assistant", left_out), left_out)
        conversations.append(check_turns(_joined(prompt, answer, left_out), left_out))
    chosen, rejected = conversations
    if chosen == rejected:
        raise InvalidRow("equal", "chosen and rejected are the same")
    if _system(chosen) != _system(rejected):
        raise InvalidRow("system", "chosen and rejected have different system turns")
    shared = _shared_turns(chosen, rejected)
    if not any(turn["role"] == "user" for turn in chosen[:shared]):
        raise InvalidRow("no_question", "chosen and rejected do not answer the same question")
    return {
        "prompt": chosen[:shared],
        "chosen": chosen[shared:],
        "rejected": rejected[shared:],
        **_columns(row),
    }


def _joined(prompt: list[Message], answer: list[Message], left_out: Counter[str]) -> list[Message]:
    """A whole conversation from the prompt of the row and one of its sides.

    UltraFeedback repeats the prompt in both answers. Where a side is a whole conversation, its own
    turns count, after the system turn of the row if it has none.
    """
    is_whole = bool(answer) and answer[0]["role"] != "assistant"
    if not is_whole:
        return prompt + answer
    system, asked = prompt[: len(_system(prompt))], prompt[len(_system(prompt)) :]
    own_system, turns = answer[: len(_system(answer))], answer[len(_system(answer)) :]
    if system and own_system and system != own_system:
        left_out["system turns that differ from the conversation"] += 1
    begins_alike = [turn["content"].strip() for turn in asked] == [
        turn["content"].strip() for turn in turns[: len(asked)]
    ]
    if not begins_alike:
        left_out["prompts that differ from the conversation"] += 1
    return (own_system or system) + turns


def _system(messages: list[Message]) -> list[Message]:
    """The system turns that messages begin with."""
    count = 0
    while count < len(messages) and messages[count]["role"] == "system":
        count += 1
    return messages[:count]


def _check_scores(row: Row) -> None:
    """Refuse a pair whose own scores say that neither answer is better, or the other one."""
    chosen, rejected = (row.get(f"score_{name}") for name in SIDES)
    if not isinstance(chosen, (int, float)) or not isinstance(rejected, (int, float)):
        return
    if chosen == rejected:
        raise InvalidRow("tie", f"score_chosen and score_rejected are both {chosen}")
    if chosen < rejected:
        raise InvalidRow(
            "order", f"score_chosen is {chosen}, below the score_rejected of {rejected}"
        )


def _columns(row: Row) -> dict[str, Any]:
    """Columns of a row that training and measuring look at."""
    columns: dict[str, Any] = {}
    tools = schemas(row.get("tools") or row.get("functions"))
    if tools:
        columns["tools"] = tools
    margin = row.get("margin")
    if margin is not None:
        if isinstance(margin, bool) or not isinstance(margin, (int, float)) or margin < 0:
            raise InvalidRow("margin", f"the margin is {str(margin)[:SHOWN]}, not a number >= 0")
        columns["margin"] = float(margin)
    for name in ("split", "kind"):
        if isinstance(row.get(name), str):
            columns[name] = row[name]
    return columns


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
    # Prompts of HH end where the assistant is to speak.
    if len(question) > 1 and question[-1]["role"] == "assistant" and not question[-1]["content"]:
        question = question[:-1]
    if name == "instruction" and row.get("input"):
        question = [message("user", f"{row['instruction']}\n{row['input']}")]
    return [*messages, *history(row), *question]
