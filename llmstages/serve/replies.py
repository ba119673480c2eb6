"""Replies of a loaded model as a stream of events, which stops when nobody listens any more."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmstages.core.errors import StageError
from llmstages.serve.pool import LoadedModel
from llmstages.text.messages import message

ROLES = ("user", "assistant")


class ListenerGone(Exception):
    """Raised inside a generation whose listener has gone, to end it."""


@dataclass(frozen=True)
class ReplySettings:
    """How a reply is made.

    Attributes:
        temperature: 0 is greedy.
        system: the system message; "" for none.
    """

    temperature: float = 0.0
    system: str = ""


def reply_events(
    loaded: LoadedModel, turns: Sequence[Mapping[str, Any]], settings: ReplySettings
) -> Iterator[dict[str, Any]]:
    """The reply to a conversation, as it is made.

    Closing the iterator ends the generation at its next token.

    Args:
        turns: ``{"role": "user" | "assistant", "content": text}``; the last one is the user's.

    Yields:
        ``{"what": "text" | "call" | "argument" | "result" | "note", "text": str}``, and at the end
        ``{"what": "done", "turns": [...], "tokens": [id, ...]}`` with all turns of the reply and
        every token of its last prompt and answer.

    Raises:
        StageError: the turns are not a conversation that ends with the user's message.
    """
    _check_turns(turns)
    events: queue.Queue[dict[str, Any] | Exception | None] = queue.Queue()
    gone = threading.Event()

    def show(what: str, text: str) -> None:
        if gone.is_set():
            raise ListenerGone
        events.put({"what": what, "text": text})

    def generate() -> None:
        try:
            events.put(_reply(loaded, turns, settings, show))
        except ListenerGone:
            pass
        except Exception as error:
            events.put(error)
        events.put(None)

    threading.Thread(target=generate, daemon=True).start()
    try:
        while (event := events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        gone.set()


def _reply(
    loaded: LoadedModel, turns: Sequence[Mapping[str, Any]], settings: ReplySettings, show: Any
) -> dict[str, Any]:
    """Make a reply on a conversation of its own. Returns the event that ends it."""
    before = [message(turn["role"], turn["content"]) for turn in turns[:-1]]
    session = replace(
        loaded.session,
        keeps_history=True,
        temperature=settings.temperature,
        system=settings.system,
        turns=[dict(turn) for turn in before],
        last_exchange=[],
    )
    session.reply(turns[-1]["content"], show)
    answer = session.turns[len(before) + 1 :]
    return {"what": "done", "turns": answer, "tokens": session.last_exchange}


def _check_turns(turns: Sequence[Mapping[str, Any]]) -> None:
    well_formed = all(
        isinstance(turn, Mapping)
        and turn.get("role") in ROLES
        and isinstance(turn.get("content"), str)
        for turn in turns
    )
    if not turns or not well_formed or turns[-1]["role"] != "user":
        raise StageError(
            "a conversation is a list of {role: user or assistant, content: text} that ends with "
            "a message of the user"
        )
