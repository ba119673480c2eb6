"""What a model said, read back from its tokens: text, reasoning and tool calls of any family.

Our own templates have control tokens around calls (chat_format.parse_reply). Models from elsewhere
write calls in the syntax of their family, which a *response template* of transformers describes:
the tokenizer's own, or TRL's for the common chat templates. Without one, calls are looked for as
JSON in ``<tool_call>`` tags (Hermes, Qwen) and as JSON that is the whole answer (Llama 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from llmstages.text import chat_format, tool_text
from llmstages.text.messages import Message, message
from llmstages.text.template_input import reads_tool_field
from llmstages.text.template_probes import REASONING_FIELDS
from llmstages.text.templates import template_of

THINK, END_OF_THINKING = "<think>", "</think>"


class _Turn(NamedTuple):
    """What a turn holds. calls: (tool, arguments as JSON text) of each."""

    content: str
    reasoning: str
    calls: list[tuple[str, str]]


def parse_turn(tokenizer: Any, ids: Sequence[int]) -> tuple[list[Message], bool]:
    """(messages, ended): all that the assistant said up to its first stop token.

    Messages are a text, or calls that were made at once after a text if there was one. ended:
    whether the turn is complete; not so where generation ran out of tokens.
    """
    if reads_tool_field(template_of(tokenizer)):
        reply, ended = chat_format.parse_reply(tokenizer, ids)
        return [reply], ended
    said, ended = _up_to_stop(tokenizer, ids)
    turn = _by_response_template(tokenizer, said) or _by_tags(tokenizer, said)
    messages: list[Message] = []
    if turn.content or not turn.calls:
        messages.append(message("assistant", turn.content))
    messages += [message("assistant", arguments, name) for name, arguments in turn.calls]
    if turn.reasoning:
        messages[0] = {**messages[0], "reasoning_content": turn.reasoning}
    return messages, ended


def _up_to_stop(tokenizer: Any, ids: Sequence[int]) -> tuple[list[int], bool]:
    """The ids of a turn, with the token that ends it, and whether there was one."""
    stops = chat_format.stop_ids(tokenizer)
    said = list(ids[: chat_format.reply_length(ids, stops)])
    return said, bool(said) and said[-1] in stops


def _by_tags(tokenizer: Any, ids: Sequence[int]) -> _Turn:
    """What tags and JSON in the text say."""
    text = chat_format.decode(tokenizer, ids)
    reasoning, text = _without_thinking(text)
    content, calls = tool_text.calls_in_text(text)
    if not calls:
        # Llama 3.1 writes one call as the whole answer, without tags.
        call = tool_text.parse_call(text)
        if call:
            content, calls = "", [call]
    return _Turn(content.strip(), reasoning, calls)


def _without_thinking(text: str) -> tuple[str, str]:
    """(reasoning, the rest) of a text that begins with a <think> block."""
    stripped = text.lstrip()
    if END_OF_THINKING not in stripped:
        return "", text
    before, _, after = stripped.partition(END_OF_THINKING)
    return before.removeprefix(THINK).strip(), after.lstrip()


def _by_response_template(tokenizer: Any, ids: Sequence[int]) -> _Turn | None:
    """What the response template of the tokenizer reads; None if there is none, or it cannot."""
    response_template = getattr(tokenizer, "response_template", None)
    response_template = response_template or known_response_template(template_of(tokenizer))
    if not response_template:
        return None
    text = tokenizer.decode(list(ids), skip_special_tokens=False)
    try:
        parsed = tokenizer.parse_response(text, schema=response_template, prefix="")
        calls = [_call(call) for call in parsed.get("tool_calls") or []]
    # A model may write anything, such as a call that is not JSON.
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    reasoning = ""
    for name in REASONING_FIELDS:
        reasoning = reasoning or str(parsed.get(name) or "")
    content = str(parsed.get("content") or "")
    # A text that ran out of tokens may end in an ordinary token, which belongs to it.
    if ids and ids[-1] in chat_format.stop_ids(tokenizer):
        content = content.removesuffix(tokenizer.decode([ids[-1]]))
    return _Turn(content.strip(), reasoning.strip(), calls)


def _call(call: Mapping[str, Any]) -> tuple[str, str]:
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return str(function["name"]), arguments


@cache
def known_response_template(template: str) -> dict[str, Any] | None:
    """TRL's response template of a chat template; None where TRL does not know it."""
    from trl.chat_template_utils import add_response_schema

    class Holder:
        chat_template = template
        response_template = None

    try:
        add_response_schema(Holder)  # type: ignore[type-var]
    except ValueError:
        return None
    return Holder.response_template
