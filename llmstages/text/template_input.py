"""Dialogues in the fields that a chat template reads.

The named templates read our own field ``tool``. Templates from elsewhere follow the convention of
transformers: the calls of a turn are a list in ``tool_calls``, each with an id that its result
repeats, and the schemas of the tools are an argument of their own. Where templates differ, the
template itself is asked (template_probes.py); what it cannot write of tools becomes plain text
(tool_text.py), so that nothing is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text import tool_text
from llmstages.text.encode import replace_surrogates
from llmstages.text.messages import Message
from llmstages.text.template_probes import (
    call_id,
    reasoning_field,
    takes_parts,
    takes_text_arguments,
    writes_calls,
    writes_results,
    writes_schemas,
    writes_system,
)

# "tool" as a key or an attribute. "tool_calls" does not match.
DEFAULT_PARAMETER = "input"  # of calls of a tool whose schema is not known (generate.tool_schema)
_TOOL_FIELD = re.compile(r"""\w\[['"]tool['"]\]|\w\.tool\b""")


@cache
def reads_tool_field(template: str) -> bool:
    """Whether the template reads calls and results from our own field ``tool``."""
    return bool(_TOOL_FIELD.search(template))


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
    turns = _StandardTurns(template, _parameters(tools or [])).of(cleaned)
    if tools and not writes_schemas(template):
        turns, tools = _with_schemas(turns, tools, template), None
    if takes_parts(template):
        turns = [_in_parts(turn) for turn in turns]
    return turns, tools


def _in_parts(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn with its content as a list of parts, as templates of models that see images want."""
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def has_tools_as_text(template: str, messages: Sequence[Message]) -> bool:
    """Whether a dialogue has calls, results or schemas that become plain text (tool_text.py)."""
    if reads_tool_field(template):
        return False
    if any(message.get("tools") for message in messages) and not writes_schemas(template):
        return True
    uses_tools = any(message.get("tool") for message in messages)
    return uses_tools and not (writes_calls(template) and writes_results(template))


def _with_schemas(
    turns: list[dict[str, Any]], tools: Sequence[Any], template: str
) -> list[dict[str, Any]]:
    """The turns with the schemas as text: in the system turn, else before the first question."""
    text = tool_text.schemas_text(tools)
    if turns and turns[0]["role"] == "system":
        system = {**turns[0], "content": f"{turns[0]['content']}\n\n{text}"}
        return [system, *turns[1:]]
    if writes_system(template) or not turns:
        return [{"role": "system", "content": text}, *turns]
    first = {**turns[0], "content": f"{text}\n\n{turns[0]['content']}"}
    return [first, *turns[1:]]


def _own_fields(message: Message) -> dict[str, Any]:
    parts = (str(message["content"]), message.get("tools"))
    return {
        "role": message["role"],
        "content": "\n".join(part for part in parts if part),
        "tool": message.get("tool") or "",
    }


class _StandardTurns:
    """Messages as turns in the convention of transformers."""

    def __init__(self, template: str, parameters: Mapping[str, str]) -> None:
        self._template = template
        self._parameters = parameters
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
        name = reasoning_field(self._template)
        return {name: str(text)} if text and name else {}

    def _add_call(self, message: Message) -> None:
        self._calls += 1
        name = str(message["tool"])
        id = str(message.get("id") or "") or call_id(self._calls)
        self._waiting.append((name, id))
        arguments: Any = _call_arguments(
            str(message["content"]), self._parameters.get(name, DEFAULT_PARAMETER)
        )
        # Calls without a result between them were made at once, after the text before them.
        if not self._turns or self._turns[-1]["role"] != "assistant":
            self._turns.append({"role": "assistant", "content": ""})
        turn = self._turns[-1]
        turn.update(self._reasoning(message))
        if not writes_calls(self._template):
            parts = (turn["content"], tool_text.call_text(name, arguments))
            turn["content"] = "\n".join(part for part in parts if part)
            return
        if takes_text_arguments(self._template):
            arguments = json.dumps(arguments, ensure_ascii=False)
        function = {"name": name, "arguments": arguments}
        call = {"type": "function", "id": id, "function": function}
        turn.setdefault("tool_calls", []).append(call)

    def _add_result(self, message: Message) -> None:
        name, content = str(message.get("tool") or ""), str(message["content"])
        id = self._id_of_result(name, str(message.get("id") or ""))
        if writes_results(self._template):
            self._turns.append(
                {"role": "tool", "content": content, "name": name, "tool_call_id": id}
            )
            return
        text = tool_text.result_text(content)
        # Templates without tools want users and assistants to alternate.
        if self._turns and self._turns[-1]["role"] == "user":
            text = f"{self._turns.pop()['content']}\n{text}"
        self._turns.append({"role": "user", "content": text})

    def _id_of_result(self, name: str, id: str) -> str:
        """The id of the call that a result answers: its own, else of the first call of the tool."""
        for waiting in self._waiting:
            if waiting[1] == id or (not id and waiting[0] == name):
                self._waiting.remove(waiting)
                return waiting[1]
        return id or call_id(self._calls)


def _parameters(schemas: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tool -> the name of its parameter, for the tools that have only one."""
    parameters = {}
    for schema in schemas:
        function = schema["function"]
        described = function.get("parameters")
        properties = described.get("properties") if isinstance(described, dict) else None
        if isinstance(properties, dict) and len(properties) == 1:
            parameters[str(function.get("name"))] = next(iter(properties))
    return parameters


def _call_arguments(text: str, parameter: str) -> dict[str, Any]:
    """The argument of a call as the object that templates write.

    parameter: what a text that is no object is the value of.
    """
    try:
        arguments = _without_surrogates(json.loads(text))
    except (ValueError, RecursionError):
        return {parameter: text}
    return arguments if isinstance(arguments, dict) else {parameter: text}


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
