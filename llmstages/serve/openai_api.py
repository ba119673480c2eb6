"""Models behind the OpenAI API: ``/v1/models`` and ``/v1/chat/completions``, streamed or whole.

Where the client sends ``tools``, the calls of the model come back as ``tool_calls`` and the client
runs them. Without, the tools that the model was made with are run here, and the client gets the
answer; with ``tool_choice: none`` no tool is run. The temperature is 0 if the request does not say.
A conversation that does not fit into the context is refused and never shortened.

Left out on purpose: completions of base models, embeddings, images, log probabilities, several
answers at once.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.core.secrets import mask
from llmstages.serve.answers import (
    answer,
    busy_answer,
    error_answer,
    read_object,
)
from llmstages.serve.chat_session import ChatSession
from llmstages.serve.guard import Receive
from llmstages.serve.openai_request import ChatRequest, read_request
from llmstages.serve.pool import ModelPool
from llmstages.serve.replies import async_events_of
from llmstages.serve.turns import Busy
from llmstages.text.messages import Message, with_tools
from llmstages.text.template_input import reads_tool_field
from llmstages.text.templates import template_of
from llmstages.text.tool_runs import single_argument

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


PAUSE_SECONDS = 0.02  # between two messages of a stream, at least


class _Stopped(Exception):
    """Raised inside a generation whose text has reached a stop text."""


def routes(pool: ModelPool) -> list[BaseRoute]:
    """The addresses of the API, for the models of a pool."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def models(request: Request) -> Response:
        return answer(lambda: {"object": "list", "data": [_model(name) for name in pool.names()]})

    def model(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(_model(name)) if name in pool.names() else _no_such_model(pool)

    def nothing_there(request: Request) -> Response:
        return error_answer("this server answers /v1/models and /v1/chat/completions", 404)

    async def chat(request: Request) -> Response:
        try:
            return await _respond(pool, read_request(await read_object(request)), request.receive)
        except Busy as error:
            return busy_answer(error)
        except StageError as error:
            return error_answer(str(error))

    return [
        Route("/v1/models", models),
        Route("/v1/models/{name}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/{rest:path}", nothing_there, methods=["GET", "POST"]),
    ]


def make_app(pool: ModelPool) -> Starlette:
    """The API alone, still without its guard (guard.py)."""
    from starlette.applications import Starlette

    return Starlette(routes=routes(pool))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llmstages"}


def _no_such_model(pool: ModelPool) -> Response:
    known = ", ".join(pool.names()) or "none"
    return error_answer(f"there is no such model; this server has {known}", 404)


async def _respond(pool: ModelPool, request: ChatRequest, receive: Receive) -> Response:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, StreamingResponse

    if request.model not in pool.names():
        return _no_such_model(pool)
    loaded = pool.loaded(request.model) or await run_in_threadpool(pool.get, request.model)
    if loaded.session.is_base:
        raise StageError(f"{request.model} is a base model, never trained on chat")
    events = async_events_of(loaded, request.settings, lambda *made: _reply(request, *made))
    if not request.stream:
        done = await _last_event(events, receive)
        return JSONResponse(_completion(request, done)) if done else error_answer("nobody listens")
    # The first event shows whether the reply can be made at all, while a status can be sent.
    await anext(events)
    return StreamingResponse(_sse(request, events), media_type="text/event-stream")


async def _last_event(events: AsyncIterator[Any], receive: Receive) -> dict[str, Any] | None:
    """The event that ends an answer; None if the client goes before, which ends the generation."""

    async def last() -> dict[str, Any]:
        return [event async for event in events][-1]

    async def client_has_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    making, leaving = asyncio.ensure_future(last()), asyncio.ensure_future(client_has_gone())
    try:
        await asyncio.wait((making, leaving), return_when=asyncio.FIRST_COMPLETED)
        return making.result() if making.done() else None
    finally:
        making.cancel()
        leaving.cancel()


def _reply(request: ChatRequest, session: ChatSession, show: Any) -> dict[str, Any]:
    """Make the reply. Returns the event that ends it."""
    shown = _Shown(request.stops, show)
    session.forgets = False  # a client cannot see what is left out
    session.prompt_ready = lambda: show("begin", "")
    calls: list[Message] = []
    if not request.may_call:
        session.tools = {}
    finish = "stop"
    try:
        if request.client_runs_tools:
            turns = _as_trained(session, request)
            said = session.next_turn(turns, shown.add)
            calls = [turn for turn in said if turn["tool"] and request.may_call]
        else:
            *before, last = request.turns
            if before and before[0]["role"] == "system":
                session.system = str(before.pop(0)["content"])
            session.turns = [dict(turn) for turn in before]
            session.reply(str(last["content"]), shown.add)
        finish = "stop" if session.ended else "length"
        shown.finish()
    except _Stopped:
        pass
    return {
        "what": "done",
        "text": shown.text,
        "calls": [_call(call, request.parameters) for call in calls],
        "finish": "tool_calls" if calls else finish,
        "usage": {
            "prompt_tokens": session.last_prompt,
            "completion_tokens": session.new_tokens,
            "total_tokens": session.last_prompt + session.new_tokens,
        },
    }


class _Shown:
    """The text of an answer up to a stop text; calls and what tools say are no part of it.

    The first token is sent at once. Of a model that writes faster than anybody reads, later ones
    are sent a few at a time, since each message costs as much as a token of a small model.
    """

    def __init__(self, stops: Sequence[str], show: Any) -> None:
        self.stops = stops
        self.show = show
        self.text = ""  # of the answer so far
        self._held = ""  # may be the beginning of a stop text
        self._unsent = ""
        self._sent_at = 0.0

    def add(self, what: str, text: str) -> None:
        if what != "text":
            return
        self._held += text
        places = [self._held.find(stop) for stop in self.stops if stop in self._held]
        if places:
            self._send(self._held[: min(places)])
            self._flush()
            raise _Stopped
        safe = len(self._held) - self._longest_beginning()
        self._send(self._held[:safe])
        self._held = self._held[safe:]

    def finish(self) -> None:
        """Send what was held back."""
        self._send(self._held)
        self._flush()

    def _send(self, text: str) -> None:
        self.text += text
        self._unsent += text
        if time.monotonic() - self._sent_at >= PAUSE_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._unsent:
            self.show("text", self._unsent)
            self._unsent = ""
            self._sent_at = time.monotonic()

    def _longest_beginning(self) -> int:
        """Characters at the end of the text with which a stop text begins."""
        for length in range(min(len(self._held), max(map(len, self.stops), default=0)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self.stops):
                return length
        return 0


def _as_trained(session: ChatSession, request: ChatRequest) -> Sequence[Message]:
    """The turns of a request in the form that the model was trained on.

    Models with our own templates call their tools by control tokens: they read no schemas, and a
    call is the text alone, without the name of its parameter.
    """
    if not reads_tool_field(template_of(session.tokenizer)):
        return with_tools(request.turns, request.schemas)
    turns = []
    for turn in request.turns:
        if turn["role"] == "assistant" and turn["tool"]:
            turn = {**turn, "content": single_argument(str(turn["content"]))}
        turns.append(turn)
    return turns


def _call(call: Message, parameters: Any) -> dict[str, Any]:
    """A call in the form of the API, whose arguments are a JSON object."""
    name, arguments = str(call["tool"]), str(call["content"])
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        arguments = json.dumps({parameters.get(name, "input"): arguments}, ensure_ascii=False)
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _completion(request: ChatRequest, done: dict[str, Any]) -> dict[str, Any]:
    """The body of a whole answer."""
    said: dict[str, Any] = {"role": "assistant", "content": done["text"]}
    if done["calls"]:
        said |= {"content": done["text"] or None, "tool_calls": done["calls"]}
    choice = {"index": 0, "message": said, "finish_reason": done["finish"], "logprobs": None}
    head = _head(request, "chat.completion")
    return {**head, "choices": [choice], "usage": done["usage"]}


def _head(request: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
    }


async def _sse(request: ChatRequest, events: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """The answer as server-sent events."""
    head = _head(request, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _event({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    try:
        async for event in events:
            if event.get("what") == "done":
                for part in _last_chunks(event):
                    yield chunk(*part)
                if request.has_usage:
                    yield _event({**head, "choices": [], "usage": event["usage"]})
            elif event["what"] == "text":
                yield chunk({"content": event["text"]})
        yield b"data: [DONE]\n\n"
    except StageError as error:
        yield _event({"error": {"message": mask(str(error))}})
    finally:
        await events.aclose()  # pyright: ignore[reportAttributeAccessIssue]


def _last_chunks(done: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The calls, and why the answer ended."""
    for index, call in enumerate(done["calls"]):
        yield {"tool_calls": [{"index": index, **call}]}, None
    yield {}, done["finish"]


def _event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()
