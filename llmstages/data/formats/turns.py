"""Turns in any of the usual spellings as messages (text/messages.py)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmstages.data.formats.errors import SHOWN, InvalidRow
from llmstages.data.formats.turn_fields import check_fields, trains
from llmstages.data.formats.values import parsed_turns, scalar_text
from llmstages.text.messages import message

Message = dict[str, Any]
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
    # A turn that is nothing but a tool call of the assistant.
    "function_call": "call",
    "tool_call": "call",
}
SPEAKING = ("assistant", "call")  # roles whose turns are what a model says
CALL_PARTS = ("tool_call", "function_call")
REASONING_PARTS = ("reasoning", "thinking")
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")  # of a turn
HH = re.compile(r"\n\n(Human|Assistant):[ ]?")


def first_given(row: Row, names: Iterable[str]) -> str:
    """The first of the names that the row has with a value other than null; "" if none."""
    for name in names:
        if row.get(name) is not None:
            return name
    return ""


def first_filled(row: Row, names: Iterable[str]) -> str:
    """The first of the names that the row has with a value that is not empty; "" if none."""
    for name in names:
        if row.get(name):
            return name
    return ""


def field_names(row: Row) -> str:
    """The fields of a row, for messages."""
    return ", ".join(map(str, row))


def turns(value: Any, left_out: Counter[str]) -> list[Message]:
    """A list of turns as messages.

    Understands role/content and from/value, contents made of parts, and tool calls as turns, as
    parts, as OpenAI has them and as llmstages writes them.

    Args:
        value: the list; anything else raises InvalidRow.
        left_out: counts the parts that are not used, by name.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidRow("format", f"expected a list of turns, found a {type(value).__name__}")
    messages: list[Message] = []
    tools = _OpenCalls()
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, Mapping):
            raise InvalidRow("format", f"turn {number} is a {type(turn).__name__}, not an object")
        role = _role(turn, number)
        check_fields(turn, number, left_out)
        content = _content(turn, role)
        if role == "tool":
            messages.append(_result(turn, content, number, tools))
            continue
        said = _said(turn, role, content, number, tools)
        messages += _with_marks(said, turn, role, number, left_out)
        reasoning = _reasoning(turn, content)
        first = len(messages) - len(said)
        if reasoning and role in SPEAKING:
            messages[first] = _with(messages[first], "reasoning_content", reasoning)
        elif reasoning:
            left_out[f"reasoning of the {role}"] += 1
    return messages


def _result(turn: Row, content: Any, number: int, tools: _OpenCalls) -> Message:
    """The result of a tool call."""
    name = tools.answered_by(turn)
    if not name:
        raise InvalidRow("tool", f"turn {number} is the result of a tool, but no tool was called")
    result = message("tool", _text(content, number), name)
    return _with(result, "id", str(turn.get("tool_call_id") or ""))


def _said(turn: Row, role: str, content: Any, number: int, tools: _OpenCalls) -> list[Message]:
    """The text of a turn and its tool calls, a message each."""
    own_call = _own_call(turn, role, content)
    calls = own_call or _calls(turn, role, content, number)
    text = "" if role == "call" or own_call else _text(content, number)
    messages: list[Message] = []
    if text or not calls:
        messages.append(message(role, text))
    for name, argument, call_id in calls:
        tools.add(name, call_id)
        messages.append(_with(message("assistant", argument, name), "id", call_id))
    return messages


def _own_call(turn: Row, role: str, content: Any) -> list[tuple[str, str, str]]:
    """The call of a turn as llmstages itself writes it: ``tool`` names what its content calls."""
    tool = turn.get("tool")
    if not tool or role != "assistant" or not isinstance(content, str):
        return []
    return [(str(tool), content, str(turn.get("id") or ""))]


def _with_marks(
    said: list[Message], turn: Row, role: str, number: int, left_out: Counter[str]
) -> list[Message]:
    """The messages of a turn with ``loss: False`` where the turn is not to be trained on."""
    is_trained = trains(turn, number)
    if role in SPEAKING and is_trained is False:
        return [{**part, "loss": False} for part in said]
    if role not in SPEAKING and is_trained:
        left_out[f"loss on turns of the {role}"] += 1
    return said


def _content(turn: Row, role: str) -> Any:
    """The content of a turn, or the refusal that OpenAI keeps apart from it."""
    content = turn.get("content")
    if content is None:
        content = turn.get("value")
    if not content and role == "assistant" and isinstance(turn.get("refusal"), str):
        return turn["refusal"]
    return content


def _with(turn: Message, key: str, value: str) -> Message:
    """The turn with an optional key, if there is a value for it."""
    return {**turn, key: value} if value else turn


def _reasoning(turn: Row, content: Any) -> str:
    """What the assistant thought: a field of the turn, or parts of its content; "" for nothing."""
    texts = [turn[name] for name in REASONING_FIELDS if isinstance(turn.get(name), str)][:1]
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and part.get("type") in REASONING_PARTS:
            texts.append(_text_of_part(part))
    return "\n".join(text.strip() for text in texts if text.strip())


def _text_of_part(part: Row) -> str:
    """The text of a part of a content, under the names that data sets give it."""
    for name in ("text", "value", *REASONING_FIELDS):
        if isinstance(part.get(name), str):
            return part[name]
    return ""


class _OpenCalls:
    """The tool calls of a dialogue that have no result yet."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._by_id: dict[str, str] = {}

    def add(self, name: str, call_id: str) -> None:
        """A call of a tool. call_id: "" if it has none."""
        self._waiting.append(name)
        self._by_id[call_id] = name

    def answered_by(self, turn: Row) -> str:
        """The tool whose result a turn is; "" if no tool was called.

        By the name in the turn, else by the id of the call (OpenAI), else in the order of calls.
        """
        name = str(turn.get("name") or turn.get("tool") or "")
        call_id = str(turn.get("tool_call_id") or "")
        if not name and call_id:
            name = self._by_id.get(call_id, "")
        if name:
            if name in self._waiting:
                self._waiting.remove(name)
            return name
        if self._waiting:
            return self._waiting.pop(0)
        # Where calls have no ids, a result may be spread over several turns.
        return self._by_id.get("", "")


def _role(turn: Row, number: int) -> str:
    """The role of a turn: user, assistant, system, tool or call."""
    spelling = str(turn.get("role") or turn.get("from") or "")
    role = ROLES.get(spelling.lower())
    if role is None:
        raise InvalidRow(
            "role",
            f"turn {number} has the role {spelling[:SHOWN]!r}, "
            f"which is not one of {', '.join(sorted(ROLES))}",
        )
    return role


def _text(content: Any, number: int) -> str:
    """The text of a turn without its reasoning; its parts are joined by line ends."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, Mapping):
            raise InvalidRow(
                "format", f"turn {number} has a part that is a {type(part).__name__}, not text"
            )
        kind = part.get("type", "text")
        if kind == "text":
            texts.append(str(part.get("text") or part.get("value") or ""))
        elif kind not in (*CALL_PARTS, *REASONING_PARTS):
            raise InvalidRow(
                "media",
                f"turn {number} has a part of type {str(kind)[:SHOWN]!r}; only text can be used",
            )
    return "\n".join(texts)


def _calls(turn: Row, role: str, content: Any, number: int) -> list[tuple[str, str, str]]:
    """(tool, argument as text, id) of each tool call in a turn."""
    calls: list[tuple[str, str, str]] = []
    for call in _raw_calls(turn, role, content, number):
        # OpenAI puts name and arguments under "function", others have them at the top.
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name"):
            raise InvalidRow(
                "tool", f"turn {number} calls a tool without a name: {str(call)[:SHOWN]}"
            )
        argument = function.get("arguments", function.get("parameters", {}))
        if not isinstance(argument, str):
            argument = json.dumps(_without_nulls(argument), ensure_ascii=False)
        calls.append((str(function["name"]), argument, str(call.get("id") or "")))
    return calls


def _without_nulls(value: Any) -> Any:
    """A value without the null fields that Arrow gives each struct of a column.

    Arguments that are JSON text keep their nulls: nobody added anything to them.
    """
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _raw_calls(turn: Row, role: str, content: Any, number: int) -> list[Any]:
    """The tool calls of a turn as they are stored, from all places where they may be."""
    listed = turn.get("tool_calls") or []
    if not isinstance(listed, list):
        raise InvalidRow("tool", f"the tool_calls of turn {number} are not a list")
    calls: list[Any] = [*listed]
    if turn.get("function_call"):
        calls.append(turn["function_call"])
    if role == "call":
        if isinstance(content, str):
            calls += _parsed(content, number)
        elif isinstance(content, list):
            calls += content
        else:
            calls.append(content)
    elif isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") not in CALL_PARTS:
                continue
            value = part.get("value", part)
            if isinstance(value, str):
                calls += _parsed(value, number)
            else:
                calls.append(value)
    return calls


def _parsed(text: str, number: int) -> list[Any]:
    """The tool calls in a JSON text, which holds one or a list of them."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRow(
            "tool", f"turn {number} holds a tool call that is not JSON ({error}): {text[:SHOWN]}"
        ) from None
    return value if isinstance(value, list) else [value]


def hh(text: str) -> list[Message]:
    """The turns of Anthropic's HH text (Bai et al. 2022).

    Each turn is a blank line, ``Human:`` or ``Assistant:``, and the text.
    """
    parts = HH.split("\n\n" + text.lstrip("\n"))
    if len(parts) < 3 or parts[0].strip():
        raise InvalidRow("format", "the text does not start with 'Human:'")
    messages: list[Message] = []
    for speaker, spoken in zip(parts[1::2], parts[2::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        content = spoken.strip()
        if messages and messages[-1]["role"] == role:
            # Some answers repeat the speaker before each paragraph.
            content = f"{messages.pop()['content']}\n\n{content}".strip()
        messages.append(message(role, content))
    return messages


def as_messages(value: Any, role: str, left_out: Counter[str]) -> list[Message]:
    """A text, one turn or a list of turns as messages. role: the role of a plain text.

    Numbers and booleans are texts. The turns may be JSON text, as in the cells of a spreadsheet.
    """
    value = parsed_turns(value)
    if isinstance(value, str) and HH.match("\n\n" + value.lstrip("\n")):
        return hh(value)
    text = scalar_text(value)
    if text is not None:
        return [message(role, text)]
    if isinstance(value, Mapping):
        return turns([value], left_out)
    return turns(value, left_out)
