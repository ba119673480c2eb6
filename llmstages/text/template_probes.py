"""What a chat template from elsewhere can write, found out by rendering short dialogues with it.

Published templates differ more than their documentation says: some take the arguments of a call as
an object, some as JSON text, some drop calls, results or schemas without a word. Asking the
template is more reliable than a list of names.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
# Words that occur in no template.
TOOL, ARGUMENT, RESULT, SYSTEM = "zzlookup", "zzargument", "zzresult", "zzsystem"
QUESTION: dict[str, Any] = {"role": "user", "content": "a"}


@cache
def reasoning_field(template: str) -> str:
    """The field of a turn from which the template takes reasoning; "" if it takes none."""
    for name in REASONING_FIELDS:
        if re.search(rf"""['"]{name}['"]|\w\.{name}\b""", template):
            return name
    return ""


@cache
def takes_parts(template: str) -> bool:
    """Whether contents must be lists of parts, as for models that see images; a text is lost."""
    text = _text(template, [{"role": "user", "content": RESULT}])
    if text and RESULT in text:
        return False
    parts = _text(template, [{"role": "user", "content": [{"type": "text", "text": RESULT}]}])
    return bool(parts and RESULT in parts)


@cache
def takes_text_arguments(template: str) -> bool:
    """Whether the template joins the arguments of a call to a text (DeepSeek V3).

    It then needs them as JSON text; other templates take an object.
    """
    as_object = _probe(template, [QUESTION, _call({"x": ARGUMENT}), _result()])
    if as_object is not None:
        return False
    return _probe(template, [QUESTION, _call(f'{{"x": "{ARGUMENT}"}}'), _result()]) is not None


@cache
def writes_calls(template: str) -> bool:
    """Whether the tool calls of a turn are written; many templates write its content alone."""
    arguments: Any = {"x": ARGUMENT}
    if takes_text_arguments(template):
        arguments = f'{{"x": "{ARGUMENT}"}}'
    # Some templates write a call only once its result follows, others know no results.
    for turns in ([QUESTION, _call(arguments), _result()], [QUESTION, _call(arguments)]):
        text = _probe(template, turns)
        if text and TOOL in text and ARGUMENT in text:
            return True
    return False


@cache
def writes_results(template: str) -> bool:
    """Whether turns of tools are written."""
    before = _call({"x": "1"}) if writes_calls(template) else _answer()
    if writes_calls(template) and takes_text_arguments(template):
        before = _call('{"x": "1"}')
    text = _probe(template, [QUESTION, before, _result()])
    return bool(text and RESULT in text)


@cache
def writes_schemas(template: str) -> bool:
    """Whether the schemas of tools are written."""
    parameters = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}}
    function = {"name": TOOL, "description": "looks up", "parameters": parameters}
    text = _probe(template, [QUESTION], [{"type": "function", "function": function}])
    return bool(text and TOOL in text)


@cache
def writes_system(template: str) -> bool:
    """Whether a system turn is written; Gemma 2's template refuses it."""
    text = _probe(template, [{"role": "system", "content": SYSTEM}, QUESTION])
    return bool(text and SYSTEM in text)


def call_id(number: int) -> str:
    """The id of the n-th call of a dialogue that has none: nine letters and digits, for Mistral."""
    return f"call{number:05d}"


def _call(arguments: Any) -> dict[str, Any]:
    function = {"name": TOOL, "arguments": arguments}
    call = {"type": "function", "id": call_id(1), "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _answer() -> dict[str, Any]:
    return {"role": "assistant", "content": "b"}


def _result() -> dict[str, Any]:
    return {"role": "tool", "name": TOOL, "tool_call_id": call_id(1), "content": RESULT}


def _probe(
    template: str, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
) -> str | None:
    """What the template writes, with contents in the form that it takes."""
    if takes_parts(template):
        turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    return _text(template, turns, tools)


def _text(
    template: str, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
) -> str | None:
    """What the template writes; None if it cannot render the turns."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, _ = render_jinja_template(
            conversations=[turns],
            tools=tools,  # type: ignore[arg-type]
            chat_template=template,
            bos_token="",
            eos_token="",
        )
    # The template is foreign code, so it may raise anything.
    except Exception:
        return None
    return texts[0]
