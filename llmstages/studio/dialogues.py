"""Dialogues that people write and rate by a guideline; ``dialogues=files`` reads them."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.serve import fields
from llmstages.serve.answers import answer, answer_object
from llmstages.studio.notes import DELETED, Notes
from llmstages.text.messages import message

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

FILE = "dialogues.jsonl"
MOST_TURNS = 100
ROLES = ("system", "user", "assistant")


def routes(studio: Studio) -> list[BaseRoute]:
    """GET and POST /api/dialogues, POST /api/dialogues/delete."""
    from starlette.routing import Route

    notes = Notes(studio.notes / FILE)

    def listed(request: Request) -> Response:
        return answer(lambda: everything(notes))

    async def save(request: Request) -> Response:
        return await answer_object(request, lambda given: saved(notes, given))

    async def delete(request: Request) -> Response:
        return await answer_object(request, lambda given: deleted(notes, given))

    return [
        Route("/api/dialogues", listed, methods=["GET"]),
        Route("/api/dialogues", save, methods=["POST"]),
        Route("/api/dialogues/delete", delete, methods=["POST"]),
    ]


def everything(notes: Notes) -> dict[str, Any]:
    """The dialogues, the guideline, and the file for ``dialogues.path``."""
    return {"dialogues": notes.rows(), "guideline": guideline(), "file": str(notes.path)}


def guideline() -> str:
    """What a good dialogue is, as the stage dialogues=synthesize tells its models."""
    return (
        resources.files("llmstages.plugins.dialogues").joinpath("guideline.md").read_text("utf-8")
    )


def saved(notes: Notes, given: dict[str, Any]) -> dict[str, Any]:
    """Save a dialogue, new or in the place of an earlier one.

    Raises:
        StageError: it is not one: it must have a user and end with the assistant.
    """
    turns = given.get("messages")
    if not isinstance(turns, list) or not 2 <= len(turns) <= MOST_TURNS:
        raise StageError(f"messages must be a list of 2 to {MOST_TURNS} turns")
    messages = []
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise StageError(f"each turn needs a role: {', '.join(ROLES)}")
        messages.append(message(turn["role"], fields.text(turn, "content")))
    roles = [turn["role"] for turn in messages if turn["role"] != "system"]
    expected = [("user", "assistant")[place % 2] for place in range(len(roles))]
    if roles != expected or roles[-1:] != ["assistant"] or "system" in roles[1:]:
        raise StageError("user and assistant must take turns, and the assistant has the last word")
    row: dict[str, Any] = {"messages": messages}
    if given.get("rating") is not None:
        row["rating"] = fields.whole(given, "rating", 3, 1, 5)
    return {"id": notes.add(row, _known(notes, given))}


def deleted(notes: Notes, given: dict[str, Any]) -> dict[str, Any]:
    """Mark a dialogue as deleted; its text stays in the file.

    Raises:
        StageError: there is no such dialogue.
    """
    id = _known(notes, given)
    if not id:
        raise StageError("id is missing")
    return {"id": notes.add({DELETED: True}, id)}


def _known(notes: Notes, given: dict[str, Any]) -> str:
    """The id in a request, which must be that of a dialogue; "" if there is none."""
    id = fields.optional_text(given, "id", 64)
    if id and id not in {row["id"] for row in notes.rows()}:
        raise StageError("there is no dialogue of that id")
    return id
