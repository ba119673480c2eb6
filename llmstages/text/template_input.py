"""Dialogues in the fields that a chat template reads.

The named templates read our own field ``tool``. Templates from elsewhere follow the convention of
transformers: the calls of a turn are a list in ``tool_calls``, each with an id that its result
repeats, and the schemas of the tools are an argument of their own. Where templates differ (the
field of reasoning, arguments as an object or as JSON text), the template itself is asked.
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
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


@cache
def reads_tool_field(template: str) -> bool:
    """Whether the template reads calls and results from our own field ``tool``."""
    return bool(_TOOL_FIELD.search(template))


@cache
def reasoning_field(template: str) -> str:
    """The field of a turn from which the template takes reasoning; "" if it takes none."""
    for name in REASONING_FIELDS:
        if re.search(rf"""\w\[['"]{name}['"]\]|\w\.{name}\b|['"]{name}['"] in \w""", template):
            return name
    return ""


@cache
def takes_text_arguments(template: str) -> bool:
    """Whether the template joins the arguments of a call to a text (DeepSeek V3).

    It then needs them as JSON text; other templates take an object.
    """
    return not _renders_call(template, {"x": "1"}) and _renders_call(template, '{"x": "1"}')


def _renders_call(template: str, arguments: Any) -> bool:
    """Whether the template can render a call with such arguments."""
    from transformers.utils.chat_template_utils import render_jinja_template

    function = {"name": "look_up", "arguments": arguments}
    call = {"type": "function", "id": call_id(1), "function": function}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "look_up", "tool_call_id": call_id(1), "content": "b"},
    ]
    try:
        render_jinja_template(
            conversations=[turns], chat_template=template, bos_token="", eos_token=""
        )
    # The template is foreign code, so it may raise anything.
    except Exception:
        return False
    return True


def call_id(number: int) -> str:
    """The id of the n-th call of a dialogue that has none: nine letters and digits, for Mistral."""
    return f"call{number:05d}"


def template_fields(
    messages: Sequence[Message], template: str
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """(turns, tools) in the fields that a template reads.

    Calls that follow each other, and a text before them, are one turn of a template from elsewhere.
    The schemas of the tools are JSON text in the field ``tools`` of the system turn. For our own
    templates they become the end of its content, and ``tools`` is None. Raises StageError where
    another template needs the schemas and they are not valid.
    """
    cleaned = [_without_surrogates(dict(message)) for message in messages]
    if reads_tool_field(template):
        return [_own_fields(message) for message in cleaned], None

    schemas = [message["tools"] for message in cleaned if message.get("tools")]
    tools = _parse_schemas(schemas[0]) if schemas else None
    return _StandardTurns(template).of(cleaned), tools


def _own_fields(message: Message) -> dict[str, Any]:
    parts = (str(message["content"]), message.get("tools"))
    return {
        "role": message["role"],
        "content": "\n".join(part for part in parts if part),
        "tool": message.get("tool") or "",
    }


class _StandardTurns:
    """Messages as turns in the convention of transformers."""

    def __init__(self, template: str) -> None:
        self._reasoning_field = reasoning_field(template)
        self._template = template
        self._turns: list[dict[str, Any]] = []
        self._waiting: list[tuple[str, str]] = []  # (tool, id) of the calls without a result
        self._calls = 0

    def of(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        for message in messages:
            if message["role"] == "assistant" and message.get("tool"):
                self._add_call(message)
            elif message["role"] == "tool":
                self._add_result(message)
            else:
                self._add_text(message)
        return self._turns

    def _add_text(self, message: Message) -> None:
        only_carries_tools = message.get("tools") and not message["content"]
        if message["role"] == "system" and only_carries_tools:
            return
        turn = {"role": message["role"], "content": str(message["content"])}
        self._turns.append({**turn, **self._reasoning(message)})

    def _reasoning(self, message: Message) -> dict[str, str]:
        text = message.get("reasoning_content")
        if not text or not self._reasoning_field:
            return {}
        return {self._reasoning_field: str(text)}

    def _add_call(self, message: Message) -> None:
        self._calls += 1
        name = str(message["tool"])
        id = str(message.get("id") or "") or call_id(self._calls)
        self._waiting.append((name, id))
        arguments: Any = _call_arguments(str(message["content"]))
        if takes_text_arguments(self._template):
            arguments = json.dumps(arguments, ensure_ascii=False)
        function = {"name": name, "arguments": arguments}
        call = {"type": "function", "id": id, "function": function}
        # Calls without a result between them were made at once, after the text before them.
        if not self._turns or self._turns[-1]["role"] != "assistant":
            self._turns.append({"role": "assistant", "content": ""})
        turn = self._turns[-1]
        turn.update(self._reasoning(message))
        turn.setdefault("tool_calls", []).append(call)

    def _add_result(self, message: Message) -> None:
        name = str(message.get("tool") or "")
        self._turns.append(
            {
                "role": "tool",
                "content": str(message["content"]),
                "name": name,
                "tool_call_id": self._id_of_result(name, str(message.get("id") or "")),
            }
        )

    def _id_of_result(self, name: str, id: str) -> str:
        """The id of the call that a result answers: its own, else of the first call of the tool."""
        for waiting in self._waiting:
            if waiting[1] == id or (not id and waiting[0] == name):
                self._waiting.remove(waiting)
                return waiting[1]
        return id or call_id(self._calls)


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
    return [_in_function(schema) for schema in schemas]


def _in_function(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as templates expect it: name and parameters stand under ``function``."""
    if isinstance(schema.get("function"), dict):
        return {"type": "function", **schema}
    return {"type": "function", "function": schema}


def _without_surrogates(value: Any) -> Any:
    """The value with lone surrogates replaced in all its texts, at any depth."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
