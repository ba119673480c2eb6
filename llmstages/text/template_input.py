"""Dialogues in the fields that a chat template reads.

The named templates read our own field ``tool``. Templates from elsewhere follow the convention of
transformers: calls are in ``tool_calls``, and the schemas of the tools are an argument of their
own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text.encode import replace_surrogates
from llmstages.text.messages import Message

# "tool" as a key or an attribute. "tool_calls" does not match.
_TOOL_FIELD = re.compile(r"""\w\[['"]tool['"]\]|\w\.tool\b""")


@cache
def reads_tool_field(template: str) -> bool:
    """Whether the template reads calls and results from our own field ``tool``."""
    return bool(_TOOL_FIELD.search(template))


def template_fields(
    messages: Sequence[Message], template: str
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """(messages, tools) in the fields that a template reads.

    The schemas of the tools are JSON text in the field ``tools`` of the system turn. For our own
    templates they become the end of its content, and ``tools`` is None. Raises StageError where
    another template needs the schemas and they are not valid.
    """
    cleaned = [_without_surrogates(dict(message)) for message in messages]
    if reads_tool_field(template):
        return [_own_fields(message) for message in cleaned], None

    schemas = [message["tools"] for message in cleaned if message.get("tools")]
    tools = _parse_schemas(schemas[0]) if schemas else None
    fields = []
    for message in cleaned:
        only_carries_tools = message.get("tools") and not message["content"]
        if message["role"] == "system" and only_carries_tools:
            continue
        fields.append(_standard_fields(message))
    return fields, tools


def _own_fields(message: Message) -> dict[str, Any]:
    parts = (str(message["content"]), message.get("tools"))
    return {
        "role": message["role"],
        "content": "\n".join(part for part in parts if part),
        "tool": message.get("tool") or "",
    }


def _standard_fields(message: Message) -> dict[str, Any]:
    role = message["role"]
    content = str(message["content"])
    tool = message.get("tool") or ""
    if role == "assistant" and tool:
        function = {"name": tool, "arguments": _call_arguments(content)}
        call = {"type": "function", "function": function}
        return {"role": role, "content": "", "tool_calls": [call]}
    fields = {"role": role, "content": content}
    if role == "tool":
        fields["name"] = tool
    return fields


def _call_arguments(text: str) -> dict[str, Any]:
    """The argument of a call as the object that templates write; other text is its ``input``."""
    try:
        arguments = _without_surrogates(json.loads(text))
    except (ValueError, RecursionError):
        return {"input": text}
    return arguments if isinstance(arguments, dict) else {"input": text}


def _parse_schemas(text: str) -> list[Any]:
    try:
        schemas = _without_surrogates(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise StageError(
            f"the tool schemas of a dialogue are not valid JSON ({error}): {text[:60]}. "
            "Fix the field tools of its system turn"
        ) from error
    if not isinstance(schemas, list) or not all(isinstance(schema, dict) for schema in schemas):
        raise StageError(
            f"the tool schemas of a dialogue are not a list of objects: {text[:60]}. "
            "Fix the field tools of its system turn"
        )
    return schemas


def _without_surrogates(value: Any) -> Any:
    """The value with lone surrogates replaced in all its texts, at any depth."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
