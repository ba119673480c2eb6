"""Replies of a loaded model as a stream of events, which stops when nobody listens any more."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from llmstages.core.errors import StageError
from llmstages.serve import fields
from llmstages.serve.chat_session import MAX_NEW_TOKENS, ChatSession, Show
from llmstages.serve.pool import LoadedModel
from llmstages.serve.turns import MOST_WAITING, Turns
from llmstages.text.messages import message

ROLES = ("user", "assistant")
MOST_TURNS = 200  # of a conversation
# All models share the cores of this machine, so all replies take turns. Whoever has the turn has
# every model alone, and may set hooks or change how attention is computed.
TURNS = Turns()
# Threads are used again: torch starts a team of its own for each new one, which takes longer than
# a short reply. There are more than can be admitted, so that refusing one waits for nobody.
WORKERS = ThreadPoolExecutor(MOST_WAITING + 16, thread_name_prefix="reply")
Event = dict[str, Any]
# make(session, show) makes a reply and returns the event that ends it.
Make = Callable[[ChatSession, Show], Event]


class ListenerGone(Exception):
    """Raised inside a generation whose listener has gone, to end it."""


@dataclass(frozen=True)
class ReplySettings:
    """How a reply is made.

    Attributes:
        temperature: 0 is greedy.
        top_k, top_p: tokens that sampling chooses from, as in transformers; 0 and 1: all.
        max_new_tokens: longest reply in tokens.
        system: the system message; "" for none.
        seed: of sampling; None draws one.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = MAX_NEW_TOKENS
    system: str = ""
    seed: int | None = None


def settings_of(given: Mapping[str, Any]) -> ReplySettings:
    """The settings in a request.

    Raises:
        StageError: a value is out of its range.
    """
    return ReplySettings(
        temperature=fields.temperature(given),
        top_k=fields.whole(given, "top_k", 0, 0, 1_000_000),
        top_p=fields.number(given, "top_p", 1.0, 0.001, 1.0),
        max_new_tokens=fields.whole(given, "max_new_tokens", MAX_NEW_TOKENS, 1, 8192),
        system=fields.optional_text(given, "system"),
        seed=fields.seed(given),
    )


def reply_events(
    loaded: LoadedModel, turns: Sequence[Mapping[str, Any]], settings: ReplySettings
) -> Iterator[dict[str, Any]]:
    """The reply to a conversation, as it is made.

    Closing the iterator ends the generation at its next token.

    Args:
        turns: ``{"role": "user" | "assistant", "content": text}``; the last one is the user's.
            Calls and results of earlier replies are turns, too, with the name of their ``tool``.

    Yields:
        ``{"what": "text" | "call" | "argument" | "result" | "note", "text": str}``, and at the end
        ``{"what": "done", "turns": [...], "tokens": [id, ...], "prompt_tokens": int}`` with all
        turns of the reply and every token of its last prompt and answer.

    Raises:
        StageError: the turns are not a conversation that ends with the user's message.
        Busy: too many replies are in the making.
    """
    before = checked_turns(turns)

    def reply(session: ChatSession, show: Show) -> Event:
        session.turns = [dict(turn) for turn in before]
        session.reply(turns[-1]["content"], show)
        # Counted from its end: where the context is full, the oldest turns were dropped.
        asked = max(p for p, turn in enumerate(session.turns) if turn["role"] == "user")
        return {
            "what": "done",
            "turns": session.turns[asked + 1 :],
            "tokens": session.last_exchange,
            "prompt_tokens": session.last_prompt,
        }

    return events_of(loaded, settings, reply)


def events_of(loaded: LoadedModel, settings: ReplySettings, make: Make) -> Iterator[Event]:
    """Events of a generation in a thread of its own. Closing the iterator ends it.

    Args:
        loaded: the model.
        settings: of the reply.
        make: makes the reply with a session of its own.
    """
    events: queue.SimpleQueue[Event | Exception | None] = queue.SimpleQueue()
    gone = threading.Event()
    _start(loaded, settings, make, events.put, gone)
    try:
        while (event := events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        gone.set()


async def async_events_of(
    loaded: LoadedModel, settings: ReplySettings, make: Make
) -> AsyncIterator[Event]:
    """The same for an event loop, to which each event comes without a detour over a thread."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
    gone = threading.Event()

    def put(event: Event | Exception | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody listens
            loop.call_soon_threadsafe(events.put_nowait, event)

    _start(loaded, settings, make, put, gone)
    try:
        while (event := await events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        gone.set()


def _start(
    loaded: LoadedModel,
    settings: ReplySettings,
    make: Make,
    put: Callable[[Event | Exception | None], None],
    gone: threading.Event,
) -> None:
    """Generate in a thread; ``put`` gets the events, an error if there is one, and None."""

    def show(what: str, text: str) -> None:
        put({"what": what, "text": text})

    def generate() -> None:
        try:
            with TURNS.one_reply(settings.seed) as turn:

                def after_token() -> None:
                    if gone.is_set():
                        raise ListenerGone
                    turn.next_token()

                session = _session(loaded, settings, after_token, turn.elsewhere)
                put(make(session, show))
        except ListenerGone:
            pass
        except Exception as error:
            put(error)
        put(None)

    WORKERS.submit(generate)


def _session(
    loaded: LoadedModel, settings: ReplySettings, after_token: Any, around_tools: Any
) -> ChatSession:
    """A conversation of its own with a loaded model."""
    return replace(
        loaded.session,
        keeps_history=True,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        system=settings.system,
        after_token=after_token,
        around_tools=around_tools,
        turns=[],
        last_exchange=[],
    )


def checked_turns(turns: Any) -> list[dict[str, Any]]:
    """The turns before the last one, as messages.

    Raises:
        StageError: the turns are not a conversation that ends with the user's message.
    """
    if not isinstance(turns, list) or not turns or not all(map(_is_turn, turns)):
        raise StageError(
            "turns must be a list of {role: user or assistant, content: text}; a call and its "
            "result (role: tool) also name their tool"
        )
    if turns[-1]["role"] != "user":
        raise StageError("a conversation must end with a message of the user")
    if len(turns) > MOST_TURNS:
        raise StageError(f"a conversation has at most {MOST_TURNS} turns here, not {len(turns)}")
    return [message(turn["role"], turn["content"], turn.get("tool", "")) for turn in turns[:-1]]


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
        return False
    tool = turn.get("tool", "")
    is_result = turn.get("role") == "tool" and bool(tool)
    return isinstance(tool, str) and (turn.get("role") in ROLES or is_result)
