"""Replies of any model of the run, streamed, with their tokens at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.serve import fields
from llmstages.serve.answers import answer_lines
from llmstages.serve.pool import LoadedModel
from llmstages.serve.replies import reply_events, settings_of
from llmstages.studio.tokenizers import shown_tokens
from llmstages.text.messages import message

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/chat: {model, turns, temperature, ...} -> a stream of events."""
    from starlette.routing import Route

    async def chat(request: Request) -> Response:
        return await answer_lines(request, lambda given: events(studio, given))

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
            mask = supervised(loaded, [*given["turns"], *event["turns"]], event)
            for token, is_supervised in zip(tokens, mask, strict=True):
                token["supervised"] = is_supervised
            event = {**event, "tokens": tokens}
        yield event


def supervised(
    loaded: LoadedModel, turns: Sequence[dict[str, Any]], event: dict[str, Any]
) -> list[bool]:
    """Whether training on the exchange would put loss on each of its tokens.

    Where it would be rendered otherwise, as without what no longer fitted into the context, these
    are the tokens of the last answer.
    """
    from llmstages.text.render import ChangedByLaterTurns, render

    answer_alone = [place >= event["prompt_tokens"] for place in range(len(event["tokens"]))]
    if loaded.session.is_base:
        return answer_alone
    dialogue = [message(turn["role"], turn["content"], turn.get("tool", "")) for turn in turns]
    try:
        (row,) = render(loaded.session.tokenizer, [dialogue])
    except (ChangedByLaterTurns, StageError):
        return answer_alone
    return list(row.supervised) if row.ids == event["tokens"] else answer_alone
