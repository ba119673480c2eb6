"""Conversations: messages, ShareGPT, Alpaca, prompt and completion, question and answer, HH text, OpenAssistant trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from llmstages.data.formats.oasst import best_path, is_tree
from llmstages.data.formats.schemas import schemas
from llmstages.data.formats.turns import HH, InvalidRow, Message, Row, as_messages, hh, turns
from llmstages.text.messages import message

TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog")
ASKED = ("prompt", "question", "instruction", "query", "problem", "input")
ANSWERED = ("completion", "response", "output", "answer", "target")


def detect(row: Row) -> str:
    """The dialogue format of a row: one of DIALOGUES. Raises InvalidRow when its fields say none."""
    if any(isinstance(row.get(name), list) for name in TURNS):
        turns = next(row[name] for name in TURNS if isinstance(row.get(name), list))
        return (
            "sharegpt"
            if turns and isinstance(turns[0], Mapping) and "from" in turns[0]
            else "messages"
        )
    if is_tree(row):
        return "oasst"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if "prompt" in row and any(row.get(name) is not None for name in ANSWERED):
        return "prompt"
    if any(isinstance(row.get(name), str) and HH.match(row[name]) for name in ("text", "chosen")):
        return "hh"
    if any(name in row for name in ASKED) and any(name in row for name in ANSWERED):
        return "question"
    raise InvalidRow(
        "format", f"no known format; the row has the fields {', '.join(map(str, row)) or '(none)'}"
    )


def conversation(
    row: Row, format: str = "", left_out: Counter[str] | None = None
) -> dict[str, Any]:
    """A row of a dialogues table: the messages of ``dialogue`` and, as JSON text, the schemas of the tools the assistant had."""
    return {"messages": dialogue(row, format, left_out), "tools": schemas(row.get("tools"))}


def dialogue(row: Row, format: str = "", left_out: Counter[str] | None = None) -> list[Message]:
    """The messages of one row. format: "" detects it; else one of DIALOGUES."""
    found = DIALOGUES[format or detect(row)](row, Counter() if left_out is None else left_out)
    return checked(found, Counter() if left_out is None else left_out)


def checked(found: list[Message], left_out: Counter[str]) -> list[Message]:
    """What training needs: a question first, an answer last, no empty turn."""
    while found and found[-1]["role"] != "assistant":
        left_out["turns after the last answer"] += 1
        found = found[:-1]
    if not found:
        raise InvalidRow("no_answer", "no turn of the assistant")
    first = next((m["role"] for m in found if m["role"] != "system"), "")
    if first != "user":
        raise InvalidRow(
            "no_question", f"the conversation starts with the {first}, not with the user"
        )
    for number, turn in enumerate(found, 1):
        if not turn["content"].strip() and not turn["tool"]:
            raise InvalidRow("empty_turn", f"turn {number} ({turn['role']}) is empty")
    return found


def _from_turns(row: Row, left_out: Counter[str]) -> list[Message]:
    found = turns(next((row[name] for name in TURNS if row.get(name) is not None), None), left_out)
    system = row.get("system")
    return (
        [message("system", system), *found] if isinstance(system, str) and system.strip() else found
    )


def _from_alpaca(row: Row, left_out: Counter[str]) -> list[Message]:
    """Taori et al. 2023: instruction, an optional input below it, output; LLaMA-Factory adds system and history."""
    question = "\n".join(
        part for part in (_string(row, "instruction"), _string(row, "input")) if part
    )
    past = [
        message(role, str(text))
        for asked, told in row.get("history") or []
        for role, text in (("user", asked), ("assistant", told))
    ]
    system = [message("system", row["system"])] if row.get("system") else []
    return [*system, *past, message("user", question), message("assistant", _string(row, "output"))]


def _from_pairs(row: Row, left_out: Counter[str]) -> list[Message]:
    """prompt and completion, question and answer, ...: each a text or a list of turns."""
    asked = next((name for name in ASKED if row.get(name) is not None), "")
    told = next((name for name in ANSWERED if row.get(name) is not None), "")
    if not asked or not told:
        raise InvalidRow(
            "format",
            f"needs one of {', '.join(ASKED)} and one of {', '.join(ANSWERED)}; has {', '.join(map(str, row))}",
        )
    return as_messages(row[asked], "user", left_out) + as_messages(row[told], "assistant", left_out)


def _from_hh(row: Row, left_out: Counter[str]) -> list[Message]:
    return hh(
        next((row[name] for name in ("text", "chosen") if isinstance(row.get(name), str)), "")
    )


def _string(row: Row, name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRow("format", f"{name} is a {type(value).__name__}, not text")
    return value or ""


DIALOGUES = {
    "messages": _from_turns,
    "sharegpt": _from_turns,
    "alpaca": _from_alpaca,
    "prompt": _from_pairs,
    "question": _from_pairs,
    "hh": _from_hh,
    "oasst": best_path,
}
