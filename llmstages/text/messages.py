"""What a turn of a dialogue is: the type that all rooms share, and a function that makes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]
MESSAGE = ("role", "content", "tool")


def message(role: str, content: str, tool: str = "") -> dict[str, str]:
    """One turn of a dialogue.

    A tool call is ``message("assistant", argument, tool=name)``; its result is ``message("tool",
    text, name)``.
    """
    return {"role": role, "content": content, "tool": tool}
