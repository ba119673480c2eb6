"""Replies of any model of the run, streamed, with their tokens at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.serve import fields
from llmstages.serve.answers import error_answer, json_lines, read_object
from llmstages.serve.replies import reply_events, settings_of
from llmstages.studio.tokenizers import shown_tokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/chat: {model, turns, temperature, ...} -> a stream of events."""
    from starlette.routing import Route

    async def chat(request: Request) -> Response:
        try:
            return json_lines(events(studio, await read_object(request)))
        except StageError as error:
            return error_answer(str(error))

    return [Route("/api/chat", chat, methods=["POST"])]


def events(studio: Studio, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a reply (serve/replies.py); the last one has the tokens of the exchange.

    A token of the model's own answer is ``supervised``: training on the exchange would put loss
    on it.
    """
    loaded = studio.pool.get(fields.text(given, "model", 500))
    yield {"what": "model", "base": loaded.session.is_base, "tools": sorted(loaded.session.tools)}
    for event in reply_events(loaded, given.get("turns") or [], settings_of(given)):
        if event["what"] == "done":
            tokens = shown_tokens(loaded.session.tokenizer, event["tokens"])
            for place, token in enumerate(tokens):
                token["supervised"] = place >= event["prompt_tokens"]
            event = {**event, "tokens": tokens}
        yield event
