"""How the tokenizers of a run split a text, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmstages.serve import fields
from llmstages.serve.answers import answer_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

MOST_TOKENIZERS = 6  # side by side
MOST_CHARACTERS = 20_000
CONTROL, TEXT = "control", "text"


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/tokens: {text, tokenizers} -> the tokens of each."""
    from starlette.routing import Route

    async def tokens(request: Request) -> Response:
        return await answer_object(request, lambda given: split(studio, given))

    return [Route("/api/tokens", tokens, methods=["POST"])]


def split(studio: Studio, given: dict[str, Any]) -> dict[str, Any]:
    """The tokens of a text under each of the tokenizers.

    Raises:
        StageError: a field is wrong, or a tokenizer is not one of the run.
    """
    from llmstages.text import chat_format

    text = fields.text(given, "text", MOST_CHARACTERS)
    columns = []
    for name in fields.names(given, "tokenizers", MOST_TOKENIZERS):
        tokenizer = studio.tokenizer(name)
        ids = chat_format.encode_texts(tokenizer, [text])[0]
        columns.append({"name": name, "tokens": shown_tokens(tokenizer, ids)})
    return {"bytes": len(text.encode()), "columns": columns}


def shown_tokens(tokenizer: Any, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Tokens as a page shows them: id, text, bytes in hexadecimal, kind (control or text)."""
    from llmstages.text.token_view import view_tokens

    return [
        {
            "id": view.id,
            "text": view.text,
            "bytes": view.hex,
            "kind": CONTROL if view.control else TEXT,
        }
        for view in view_tokens(tokenizer, ids)
    ]
