"""What a turn of a dialogue is: the type that all rooms share, and a function that makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
MESSAGE = ("role", "content", "tool")


def message(role: str, content: str, tool: str = "") -> dict[str, str]:
    """One turn of a dialogue.

    A tool call is ``message("assistant", argument, tool=name)``; its result is ``message("tool",
    text, name)``. Calls that are made at once follow each other, after the text before them.
    Optional keys: ``id`` of a call and its result, ``reasoning_content`` of an answer, ``tools`` of
    a system turn (see with_tools).
    """
    return {"role": role, "content": content, "tool": tool}


def with_tools(messages: Sequence[Message], tools: str) -> Sequence[Message]:
    """The messages with the schemas of their tools in the system turn, which is added if missing.

    tools: JSON text, "" for none.
    """
    if not tools:
        return messages
    if messages and messages[0]["role"] == "system":
        system, rest = messages[0], messages[1:]
    else:
        system, rest = message("system", ""), messages
    return [{**system, "tools": tools}, *rest]
