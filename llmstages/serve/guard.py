"""Who may ask a local server, and how much: an ASGI application around another one.

A page of a stranger can send requests to 127.0.0.1, and DNS rebinding can give it a name that
resolves there. So every request must name this server in ``Host``, a request with an ``Origin``
must come from this server's own page, and all but the static files needs the token, in a header
that no other page can set (no cookies, hence no CSRF). Bodies are JSON, limited in size and time.

Left out on purpose: users and TLS. The server is for one person on one machine.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 1 << 20  # bytes
MAX_TARGET = 8192  # bytes of a path and its query
BODY_SECONDS = 15.0  # in which a body must have arrived
PROTECTED = ("/api/", "/v1/")  # paths that need the token
SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass
class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: the HTTP status code.
        reason: for the client, without anything that it sent.
    """

    status: int
    reason: str


class Guard:
    """Passes a request on to ``app`` if it may be answered.

    Args:
        app: the application behind it.
        token: that a request to a protected path must carry, as ``Authorization: Bearer TOKEN``.
        hosts: values of ``Host`` that name this server, in lower case, with the port.
    """

    def __init__(self, app: App, token: str, hosts: frozenset[str]) -> None:
        self.app = app
        self.token = token
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # there are none
            return
        guarded_send = _with_security_headers(send)
        try:
            self._check(scope)
            guarded_receive = await _limited_body(scope, receive)
        except Refusal as refusal:
            await _answer(refusal, guarded_send)
            return
        await self.app(scope, guarded_receive, guarded_send)

    def _check(self, scope: Scope) -> None:
        """Raises Refusal where the request may not be answered, whatever it asks for."""
        headers = _headers(scope)
        if headers.get("host", "").lower() not in self.hosts:
            raise Refusal(403, "this server does not answer to that host name")
        target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if target > MAX_TARGET:
            raise Refusal(414, f"the address is longer than {MAX_TARGET} bytes")
        is_protected = scope["path"].startswith(PROTECTED)
        if not is_protected and scope["method"] not in ("GET", "HEAD"):
            raise Refusal(405, "only GET is answered here")
        if not is_protected:
            return  # the page itself: it holds no data, and a link from elsewhere may open it
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self.hosts}:
            raise Refusal(403, "requests of other pages are not answered")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "requests of other pages are not answered")
        given = headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            raise Refusal(
                401,
                "the token is missing or wrong: open the address that the server printed, or "
                "send it as the API key",
            )
        has_body = scope["method"] not in ("GET", "HEAD", "DELETE")
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and content_type != "application/json":
            raise Refusal(415, "the body must be application/json")


def _headers(scope: Scope) -> dict[str, str]:
    """The headers in lower case.

    Raises:
        Refusal: a header that decides is there twice, so that two readers may differ.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in headers and name in ("host", "origin", "authorization", "content-type"):
            raise Refusal(400, f"the header {name} is there twice")
        headers[name] = raw_value.decode("latin-1")
    return headers


async def _limited_body(scope: Scope, receive: Receive) -> Receive:
    """A ``receive`` that gives the whole body, read within the limits of size and time.

    What comes after the body (the client has gone) is passed on, so that a stream can stop.
    """
    if scope["method"] in ("GET", "HEAD"):
        return receive
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise Refusal(400, "the client has gone")
                body += event.get("body", b"")
                if len(body) > MAX_BODY:
                    raise Refusal(413, f"the body is larger than {MAX_BODY} bytes")
                if not event.get("more_body"):
                    break
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    whole = {"type": "http.request", "body": body, "more_body": False}
    waiting: list[MutableMapping[str, Any]] = [whole]

    async def receive_again() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _with_security_headers(send: Send) -> Send:
    """A ``send`` that adds the headers which tell a browser what a page may do."""

    async def guarded_send(event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
            kept = [
                (name, value)
                for name, value in event.get("headers", [])
                if name.decode("latin-1").lower() not in SECURITY_HEADERS
            ]
            event = {**event, "headers": [*kept, *own]}
        await send(event)

    return guarded_send


async def _answer(refusal: Refusal, send: Send) -> None:
    body = json.dumps({"error": {"message": refusal.reason, "type": "refused"}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what is left of an oversized body is not read
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
