"""Tools as plain text, for models whose chat template knows none.

The form is that of Nous Hermes and Qwen, the most common one: schemas in the system turn, calls as
JSON in ``<tool_call>`` tags, results in ``<tool_response>`` tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
OPEN_CALL = "<tool_call>"


def schemas_text(tools: Sequence[Any]) -> str:
    """The schemas of tools and how to call them, for the system turn."""
    schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "You may call functions to help with the request of the user. Their signatures are in "
        f"<tools></tools> tags:\n<tools>\n{schemas}\n</tools>\n"
        "To call a function, answer with a JSON object of its name and arguments in "
        "<tool_call></tool_call> tags:\n"
        '<tool_call>\n{"name": FUNCTION, "arguments": ARGUMENTS}\n</tool_call>'
    )


def call_text(name: str, arguments: Any) -> str:
    """One call."""
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def result_text(content: str) -> str:
    """The result of a call, for a turn of the user."""
    return f"<tool_response>\n{content}\n</tool_response>"


def calls_in_text(text: str) -> tuple[str, list[tuple[str, str]]]:
    """(text before the first call, (tool, arguments as JSON text) of each call) of an answer.

    What is in the tags but is not a call stays text.
    """
    calls = []
    for match in CALL.finditer(text):
        call = parse_call(match[1])
        if call:
            calls.append(call)
    before = text.split(OPEN_CALL)[0].strip() if calls else text
    return before, calls


def parse_call(text: str) -> tuple[str, str] | None:
    """(tool, arguments as JSON text) of a call written as JSON; None if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return value["name"], arguments
