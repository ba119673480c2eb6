"""Conversations in the formats of the usual chat data sets.

Messages, ShareGPT, Alpaca, prompt and completion, question and answer, HH text and OpenAssistant
trees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from llmstages.data.formats.errors import SHOWN
from llmstages.data.formats.oasst import best_path, is_tree
from llmstages.data.formats.schemas import schemas
from llmstages.data.formats.turn_fields import refuse_media
from llmstages.data.formats.turns import (
    HH,
    InvalidRow,
    Message,
    Row,
    as_messages,
    field_names,
    first_given,
    hh,
    turns,
)
from llmstages.data.formats.values import looks_like_turns, parsed_turns, scalar_text
from llmstages.text.messages import message

TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog")
ASKED = ("prompt", "question", "instruction", "query", "problem", "input")
ANSWERED = ("completion", "response", "output", "answer", "target")
WANTED_MARKS = ("label", "kto_tag", "desirable", "is_desirable", "thumbs_up")
HH_TEXTS = ("text", "chosen")


def detect(row: Row) -> str:
    """The dialogue format of a row: one of DIALOGUES. Raises InvalidRow if no format fits."""
    for name in TURNS:
        listed = parsed_turns(row.get(name))
        if isinstance(listed, list):
            return _format_of_turns(listed)
        if isinstance(listed, str) and looks_like_turns(listed):
            raise InvalidRow(
                "cell",
                f"{name} holds turns as text that is neither JSON nor a list of Python (numpy "
                f"leaves the commas out): {listed[:SHOWN]}",
            )
    if is_tree(row):
        return "oasst"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if "prompt" in row and first_given(row, ANSWERED):
        return "prompt"
    for name in HH_TEXTS:
        if isinstance(row.get(name), str) and HH.match(row[name]):
            return "hh"
    if any(name in row for name in ASKED) and any(name in row for name in ANSWERED):
        return "question"
    raise InvalidRow(
        "format", f"no known format; the row has the fields {field_names(row) or '(none)'}"
    )


def _format_of_turns(listed: list[Any]) -> str:
    if listed and isinstance(listed[0], Mapping) and "from" in listed[0]:
        return "sharegpt"
    return "messages"


def conversation(
    row: Row, format: str = "", left_out: Counter[str] | None = None
) -> dict[str, Any]:
    """One row of a dialogues table.

    Returns:
        ``messages`` as dialogue() gives them; ``tools``, the schemas of the tools that the
        assistant had, as JSON text.
    """
    tools = schemas(row.get("tools") or row.get("functions"))
    return {"messages": dialogue(row, format, left_out), "tools": tools}


def dialogue(row: Row, format: str = "", left_out: Counter[str] | None = None) -> list[Message]:
    """The messages of one row. Raises InvalidRow if it cannot be used.

    Args:
        row: a row of a data set.
        format: one of DIALOGUES; "" detects it.
        left_out: counts what is left out of usable rows, by name.
    """
    if left_out is None:
        left_out = Counter()
    refuse_media(row, "the row")
    refuse_unwanted(row)
    convert = DIALOGUES[format or detect(row)]
    messages = check_turns(convert(row, left_out), left_out)
    answers = [turn for turn in messages if turn["role"] == "assistant"]
    if all(turn.get("loss") is False for turn in answers):
        raise InvalidRow("no_loss", "every answer is marked as not to be trained on")
    return messages


def refuse_unwanted(row: Row) -> None:
    """Refuse a row whose answer is marked as one that is not wanted, as in data for KTO."""
    for name in WANTED_MARKS:
        if row.get(name) is False:
            raise InvalidRow(
                "unwanted", f"{name} is false: the answer is one that a model must not give"
            )


def check_turns(messages: list[Message], left_out: Counter[str]) -> list[Message]:
    """The messages up to the last answer.

    Training needs a question first, an answer last and no empty turn; else InvalidRow is raised.
    """
    said = [turn for turn in messages if turn["role"] != "system" or _says_something(turn)]
    if len(said) < len(messages):
        left_out["empty system turns"] += len(messages) - len(said)
        messages = said
    while messages and messages[-1]["role"] != "assistant":
        left_out["turns after the last answer"] += 1
        messages = messages[:-1]
    if not messages:
        raise InvalidRow("no_answer", "no turn of the assistant")
    spoken = [turn["role"] for turn in messages if turn["role"] != "system"]
    if spoken[0] != "user":
        raise InvalidRow(
            "no_question", f"the conversation starts with the {spoken[0]}, not with the user"
        )
    for number, turn in enumerate(messages, 1):
        if not _says_something(turn):
            raise InvalidRow("empty_turn", f"turn {number} ({turn['role']}) is empty")
    return messages


def _says_something(turn: Message) -> bool:
    return bool(turn["content"].strip() or turn["tool"])


def _from_turns(row: Row, left_out: Counter[str]) -> list[Message]:
    """A list of turns, and the system text that some data sets keep beside it."""
    name = first_given(row, TURNS)
    messages = turns(parsed_turns(row[name]) if name else None, left_out)
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        return [message("system", system), *messages]
    return messages


def _from_alpaca(row: Row, left_out: Counter[str]) -> list[Message]:
    """Instruction, an optional input below it, and output (Taori et al. 2023).

    LLaMA-Factory adds system and history, a list of (question, answer).
    """
    messages: list[Message] = []
    if row.get("system"):
        messages.append(message("system", _string(row, "system")))
    messages += history(row)
    parts = (_string(row, "instruction"), _string(row, "input"))
    question = "\n".join(part for part in parts if part)
    messages.append(message("user", question))
    messages.append(message("assistant", _string(row, "output")))
    return messages


def history(row: Row) -> list[Message]:
    """The earlier exchanges of an Alpaca row."""
    exchanges = row.get("history") or []
    if not isinstance(exchanges, list):
        raise InvalidRow("format", f"history is a {type(exchanges).__name__}, not a list")
    messages: list[Message] = []
    for exchange in exchanges:
        if not isinstance(exchange, (list, tuple)) or len(exchange) != 2:
            raise InvalidRow("format", "history holds what is not a pair of question and answer")
        question, answer = exchange
        messages.append(message("user", str(question)))
        messages.append(message("assistant", str(answer)))
    return messages


def _from_pairs(row: Row, left_out: Counter[str]) -> list[Message]:
    """A question and an answer under any of their names, each a text or a list of turns."""
    asked = first_given(row, ASKED)
    answered = first_given(row, ANSWERED)
    if not asked or not answered:
        raise InvalidRow(
            "format",
            f"needs one of {', '.join(ASKED)} and one of {', '.join(ANSWERED)}; "
            f"has {field_names(row)}",
        )
    question = as_messages(row[asked], "user", left_out)
    return question + as_messages(row[answered], "assistant", left_out)


def _from_hh(row: Row, left_out: Counter[str]) -> list[Message]:
    for name in HH_TEXTS:
        if isinstance(row.get(name), str):
            return hh(row[name])
    return hh("")


def _string(row: Row, name: str) -> str:
    value = row.get(name)
    text = scalar_text(value)
    if value is not None and text is None:
        raise InvalidRow("format", f"{name} is a {type(value).__name__}, not text")
    return text or ""


DIALOGUES = {
    "messages": _from_turns,
    "sharegpt": _from_turns,
    "alpaca": _from_alpaca,
    "prompt": _from_pairs,
    "question": _from_pairs,
    "hh": _from_hh,
    "oasst": best_path,
}
