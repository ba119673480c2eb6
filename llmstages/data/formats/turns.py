"""Turns in any of the usual spellings as the message lists of tables.py."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.text.messages import message

Message = dict[str, str]
Row = Mapping[str, Any]

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "call",
    "tool_call": "call",
}
HH = re.compile(r"\n\n(Human|Assistant):[ ]?")
SHOWN = 60


class InvalidRow(ValueError):
    """A row that cannot be converted. rule: a short name to count by."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def turns(value: Any, left_out: Counter[str]) -> list[Message]:
    """A list of turns in any of the usual spellings (role/content, from/value; parts, tool calls) as messages."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidRow("format", f"expected a list of turns, found a {type(value).__name__}")
    out: list[Message] = []
    waiting: list[str] = []  # tools called and not answered yet
    by_id: dict[str, str] = {}  # OpenAI pairs a result with its call by an id
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, Mapping):
            raise InvalidRow("format", f"turn {number} is a {type(turn).__name__}, not an object")
        spoken = str(turn.get("role") or turn.get("from") or "")
        role = ROLES.get(spoken.lower())
        if role is None:
            raise InvalidRow(
                "role",
                f"turn {number} has the role {spoken[:SHOWN]!r}, which is none of {', '.join(sorted(ROLES))}",
            )
        content = turn.get("content", turn.get("value"))
        if role == "tool":
            name = str(
                turn.get("name")
                or by_id.get(str(turn.get("tool_call_id") or ""), "")
                or (waiting.pop(0) if waiting else "")
            )
            if not name:
                raise InvalidRow(
                    "tool", f"turn {number} is a tool's result, but no tool was called"
                )
            if name in waiting:
                waiting.remove(name)
            out.append(message("tool", _text(content, number, left_out), name))
            continue
        calls = _calls(turn, role, content, number)
        for name, argument, key in calls:
            waiting.append(name)
            by_id[key] = name
        text = "" if role == "call" else _text(content, number, left_out)
        if text or not calls:
            out.append(message(role, text))
        out += [message("assistant", argument, name) for name, argument, _ in calls]
    return out


def _text(content: Any, number: int, left_out: Counter[str]) -> str:
    """The text of a turn; parts of it are joined."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False)
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if isinstance(part, str):
            texts.append(part)
        elif kind == "text":
            texts.append(str(part.get("text") or part.get("value") or ""))
        elif kind in ("reasoning", "thinking"):
            left_out[f"{kind} parts"] += 1
        elif kind not in ("tool_call", "function_call"):
            raise InvalidRow(
                "media",
                f"turn {number} has a part of type {str(kind)[:SHOWN]!r}; only text can be used",
            )
    return "\n".join(texts)


def _calls(turn: Row, role: str, content: Any, number: int) -> list[tuple[str, str, str]]:
    """(tool, argument text, id) of each tool call in a turn."""
    found: list[Any] = list(turn.get("tool_calls") or [])
    if turn.get("function_call"):
        found.append(turn["function_call"])
    if role == "call":
        found += (
            _parsed(content, number)
            if isinstance(content, str)
            else content
            if isinstance(content, list)
            else [content]
        )
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, Mapping) and part.get("type") in ("tool_call", "function_call"):
                value = part.get("value", part)
                found += _parsed(value, number) if isinstance(value, str) else [value]
    out = []
    for call in found:
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(inner, Mapping) or not inner.get("name"):
            raise InvalidRow(
                "tool", f"turn {number} calls a tool without a name: {str(call)[:SHOWN]}"
            )
        argument = inner.get("arguments", inner.get("parameters", {}))
        argument = (
            argument if isinstance(argument, str) else json.dumps(argument, ensure_ascii=False)
        )
        out.append((str(inner["name"]), argument, str(call.get("id") or "")))
    return out


def _parsed(text: str, number: int) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidRow(
            "tool", f"turn {number} holds a tool call that is not JSON ({error}): {text[:SHOWN]}"
        ) from None
    return value if isinstance(value, list) else [value]


def hh(text: str) -> list[Message]:
    """The turns of Anthropic's HH text: blank line, ``Human:`` or ``Assistant:``, what was said (Bai et al. 2022)."""
    parts = HH.split("\n\n" + text.lstrip("\n"))
    if len(parts) < 3 or parts[0].strip():
        raise InvalidRow("format", "the text does not start with 'Human:'")
    out: list[Message] = []
    for who, said in zip(parts[1::2], parts[2::2], strict=True):
        role = "user" if who == "Human" else "assistant"
        if out and out[-1]["role"] == role:  # an answer of several paragraphs, each marked
            out[-1] = message(role, f"{out[-1]['content']}\n\n{said.strip()}".strip())
        else:
            out.append(message(role, said.strip()))
    return out


def as_messages(value: Any, role: str, left_out: Counter[str]) -> list[Message]:
    """A text, one turn or a list of turns as messages; role is that of a plain text."""
    if isinstance(value, str):
        return hh(value) if HH.match("\n\n" + value.lstrip("\n")) else [message(role, value)]
    if isinstance(value, (int, float)):
        return [message(role, str(value))]
    return turns([value] if isinstance(value, Mapping) else value, left_out)
