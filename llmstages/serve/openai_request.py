"""A request to the OpenAI API for chat, read and checked.

What would change the answer and is not supported is refused; what only concerns accounts and
storage is ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data.formats.errors import InvalidRow
from llmstages.data.formats.schemas import schemas
from llmstages.data.formats.turns import turns as read_turns
from llmstages.serve import fields
from llmstages.serve.chat_session import MAX_NEW_TOKENS
from llmstages.serve.replies import MOST_TURNS, ReplySettings
from llmstages.text.messages import Message

MOST_STOPS = 4
MOST_NEW_TOKENS = 8192
# Field -> the values that mean "not asked for".
NOT_SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "functions": (None, []),
    "function_call": (None, "auto"),
    "parallel_tool_calls": (None, True),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "reasoning_effort": (None,),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
    # Of other servers of this API
    "min_p": (None, 0),
    "min_tokens": (None, 0),
    "repetition_penalty": (None, 1),
    "length_penalty": (None, 1),
    "stop_token_ids": (None, []),
    "best_of": (None, 1),
    "use_beam_search": (None, False),
    "chat_template_kwargs": (None, {}),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
}


@dataclass(frozen=True)
class ChatRequest:
    """A request for one answer.

    Attributes:
        model: its name.
        turns: the conversation.
        schemas: of the client's tools, as JSON text; "" for none.
        settings: how the reply is made.
        stops: texts before which the answer ends.
        stream: whether the answer is sent as it is made.
        has_usage: whether the stream ends with the numbers of tokens.
        client_runs_tools: calls are returned; otherwise the model's own tools are run here.
        may_call: False where no tool may be called at all (``tool_choice: none``).
        parameters: tool of the client -> its first parameter, which plain arguments are given to.
    """

    model: str
    turns: list[Message]
    schemas: str
    settings: ReplySettings
    stops: list[str]
    stream: bool
    has_usage: bool
    client_runs_tools: bool
    may_call: bool
    parameters: Mapping[str, str]


def read_request(given: Mapping[str, Any]) -> ChatRequest:
    """A request as it was sent.

    Raises:
        StageError: a field is missing or wrong, or asks for what is not supported.
    """
    for name, harmless in NOT_SUPPORTED.items():
        if given.get(name) not in harmless:
            raise StageError(f"{name} is not supported here")
    turns = _conversation(given.get("messages"))
    tools = _tools(given)
    options = given.get("stream_options")
    # A result at the end answers a call that the client has run.
    client_runs_tools = bool(tools) or turns[-1]["role"] != "user"
    return ChatRequest(
        model=fields.text(given, "model", 500),
        turns=turns,
        schemas=_schemas(tools),
        settings=_settings(given),
        stops=stop_texts(given),
        stream=fields.flag(given, "stream"),
        has_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        client_runs_tools=client_runs_tools,
        may_call=given.get("tool_choice") != "none",
        parameters={tool["function"]["name"]: _first_parameter(tool) for tool in tools},
    )


def _settings(given: Mapping[str, Any]) -> ReplySettings:
    is_new = given.get("max_completion_tokens") is not None
    name = "max_completion_tokens" if is_new else "max_tokens"
    return ReplySettings(
        temperature=fields.temperature(given),
        top_k=fields.whole(given, "top_k", 0, 0, 1_000_000),
        top_p=fields.number(given, "top_p", 1.0, 0.001, 1.0),
        max_new_tokens=fields.whole(given, name, MAX_NEW_TOKENS, 1, MOST_NEW_TOKENS),
        seed=fields.seed(given),
    )


def stop_texts(given: Mapping[str, Any]) -> list[str]:
    """The texts before which an answer ends."""
    stop = given.get("stop")
    if stop in (None, "", []):
        return []
    return fields.names({"stop": [stop] if isinstance(stop, str) else stop}, "stop", MOST_STOPS)


def _conversation(messages: Any) -> list[Message]:
    if not isinstance(messages, list) or not messages:
        raise StageError("messages must be a list with at least one message")
    if len(messages) > MOST_TURNS:
        raise StageError(f"there are {len(messages)} messages; at most {MOST_TURNS} are taken")
    for turn in messages:
        content = turn.get("content") if isinstance(turn, Mapping) else None
        if not isinstance(content, str | list | None):
            raise StageError("the content of a message must be a text or a list of parts")
    try:
        return list(read_turns([_named(turn) for turn in messages], Counter()))
    except InvalidRow as error:
        raise StageError(f"messages: {error}") from None


def _named(turn: Any) -> Any:
    """A message of a developer is what used to be one of the system."""
    if isinstance(turn, Mapping) and turn.get("role") == "developer":
        return {**turn, "role": "system"}
    return turn


def _tools(given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tools = given.get("tools") or []
    choice = given.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise StageError("tool_choice must be auto or none: a call cannot be forced here")
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise StageError(
            "tools must be a list of {type: function, function: {name: ..., parameters: a schema}}"
        )
    return [] if choice == "none" else tools


def _schemas(tools: Sequence[Mapping[str, Any]]) -> str:
    try:
        return schemas(list(tools))
    except InvalidRow as error:
        raise StageError(f"tools: {error}") from None


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return False
    parameters = function.get("parameters") or {}
    return isinstance(parameters, Mapping) and isinstance(_properties(parameters), Mapping)


def _properties(parameters: Mapping[str, Any]) -> Any:
    return parameters.get("properties") or {}


def _first_parameter(tool: Mapping[str, Any]) -> str:
    """The parameter that a model means which calls its tools with one text."""
    properties = _properties(tool["function"].get("parameters") or {})
    return str(next(iter(properties), "input"))
