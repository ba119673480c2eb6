"""Answers of a server in JSON: one object, an error, or lines that arrive as they are made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.core.secrets import mask
from llmstages.serve.turns import Busy

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Json = dict[str, Any]
RETRY_SECONDS = 2  # after which a client that was refused may ask again


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        StageError: it is not one, or its texts cannot be encoded (half of a surrogate pair).
    """
    try:
        given = json.loads(await request.body())
        json.dumps(given, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise StageError(f"the body is not JSON: {type(error).__name__}") from None
    if not isinstance(given, dict):
        raise StageError("the body must be one JSON object")
    return given


async def answer_object(request: Request, make: Callable[[Json], Any]) -> Response:
    """What ``make`` returns for the JSON object of a request, computed beside other requests.

    A StageError becomes a message with status 400, Busy one with status 429.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse

    try:
        given = await read_object(request)
        return JSONResponse(await run_in_threadpool(make, given))
    except Busy as error:
        return busy_answer(error)
    except StageError as error:
        return error_answer(str(error))


async def answer_lines(request: Request, make: Callable[[Json], Iterator[Json]]) -> Response:
    """The stream that ``make`` gives for the JSON object of a request."""
    try:
        return json_lines(make(await read_object(request)))
    except StageError as error:
        return error_answer(str(error))


def busy_answer(error: Busy) -> Response:
    """Status 429, with the time after which a client may ask again."""
    response = error_answer(str(error), 429)
    response.headers["retry-after"] = str(RETRY_SECONDS)
    return response


def answer(make: Callable[[], Any]) -> Response:
    """What ``make`` returns, as JSON; a StageError becomes a message with status 400."""
    from starlette.responses import JSONResponse

    try:
        return JSONResponse(make())
    except StageError as error:
        return error_answer(str(error))


def error_answer(message: str, status: int = 400) -> Response:
    """An error in the shape that clients of the OpenAI API read."""
    from starlette.responses import JSONResponse

    error = {"message": mask(message), "type": "invalid_request_error"}
    return JSONResponse({"error": error}, status_code=status)


def json_lines(events: Iterator[Json]) -> Response:
    """A stream of JSON lines, each sent as soon as it is there.

    An error in the middle becomes a last line ``{"error": message}``, since the status has gone.
    If the client goes, the iterator is closed.
    """
    from starlette.responses import StreamingResponse

    async def lines() -> AsyncIterator[bytes]:
        async for event in in_thread(events):
            yield json.dumps(event, ensure_ascii=False).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def in_thread(events: Iterator[Json]) -> AsyncIterator[Json]:
    """The events of an iterator that waits, without holding up the others who are served."""
    from starlette.concurrency import run_in_threadpool

    try:
        while (event := await run_in_threadpool(next, events, None)) is not None:
            yield event
    except StageError as error:
        yield {"error": mask(str(error))}
    finally:
        close = getattr(events, "close", None)
        if close:
            close()
