"""Attacks on the local server: none succeeds, and it answers a good request afterwards."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest

from llmstages.pipeline import history
from llmstages.studio.app import Studio, make_app
from tests.live import live
from tests.serve.attacks import ATTACKS, BODY, CHAT, GOOD, Attack

SECRETS = (b"root:", b"def routes", b"safetensors", b'"steps"')


@pytest.fixture(scope="module")
def server(made):
    patch = pytest.MonkeyPatch()
    patch.chdir(made)
    run = history.last_run()
    with live(make_app(Studio(run, made / "runs"))) as address:
        yield address
    patch.undo()


def filled(text: str, server) -> str:
    host = f"{server.host}:{server.port}"
    for name, value in (("{host}", host), ("{token}", server.token), ("{port}", str(server.port))):
        text = text.replace(name, value)
    return text


def connect(server) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=20)


def read_all(connection) -> bytes:
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except (ConnectionError, TimeoutError):
        pass
    return received


def send(server, attack: Attack) -> tuple[int, bytes]:
    """(status, the rest of the answer); status 0 where the connection was closed."""
    lines = [f"{attack.method} {filled(attack.path, server)} HTTP/1.1"]
    lines += [f"{name}: {filled(value, server)}" for name, value in attack.headers]
    lines += [f"Content-Length: {len(attack.body)}", "Connection: close"]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):  # refused before the body was read
            connection.sendall(head + attack.body)
        answer = read_all(connection)
    status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
    return status, answer


def answers_well(server) -> bool:
    status, _ = send(server, Attack("good", "POST", CHAT, GOOD, BODY))
    return status == 200


def test_there_are_as_many_attacks_as_are_asked_for():
    assert len(ATTACKS) >= 120
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name[:60])
def test_an_attack_is_refused(server, attack):
    status, answer = send(server, attack)
    assert status in (0, *attack.statuses), answer[:300]
    assert not any(secret in answer for secret in SECRETS)
    assert server.token.encode() not in answer, "an answer never repeats the token"
    assert b"Traceback" not in answer and b"<script>" not in answer


def test_the_server_is_up_after_all_of_them(server):
    assert answers_well(server)


TWO_LENGTHS = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
NOT_HTTP = {
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nHost: HOST\r\n" + TWO_LENGTHS,
    "a folded header": b"GET /api/run HTTP/1.1\r\nHost: HOST\r\nX: a\r\n b\r\n\r\n",
    "two blanks": b"GET  /api/run HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "another version": b"GET /api/run HTTP/9.9\r\nHost: HOST\r\n\r\n",
    "no version": b"GET /api/run\r\nHost: HOST\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("what", NOT_HTTP)
def test_what_is_not_http_is_refused(server, what):
    host = f"{server.host}:{server.port}".encode()
    with connect(server) as connection:
        connection.sendall(NOT_HTTP[what].replace(b"HOST", host))
        connection.settimeout(8)
        answer = read_all(connection)
    assert b" 200 " not in answer
    assert answers_well(server)


def test_a_websocket_is_refused(server):
    upgrade = (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )
    for path in ("/", "/api/run", CHAT):
        status, answer = send(server, Attack("websocket", "GET", path, (*GOOD, *upgrade)))
        assert status != 101 and b"Sec-WebSocket-Accept" not in answer


def test_a_head_of_a_megabyte_is_refused(server):
    flood = tuple((f"X-{number}", "a" * 1000) for number in range(1000))
    status, _ = send(server, Attack("flood", "GET", "/api/run", (*GOOD, *flood)))
    assert status in (0, 400, 431)
    assert answers_well(server)


def test_a_new_user_is_answered_beside_200_silent_and_slow_connections(server, monkeypatch):
    from llmstages.serve import connections, guard

    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(guard, "BODY_SECONDS", 1.0)
    silent = [connect(server) for _ in range(100)]
    half_a_head = [connect(server) for _ in range(50)]
    half_a_body = [connect(server) for _ in range(50)]
    for connection in half_a_head:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
    head = f"POST {CHAT} HTTP/1.1\r\nContent-Length: 1000\r\n"
    head += "".join(f"{name}: {filled(value, server)}\r\n" for name, value in GOOD)
    for connection in half_a_body:
        connection.sendall(head.encode() + b"\r\n{")
    began = time.monotonic()
    assert answers_well(server)
    assert time.monotonic() - began < 2
    for connection in (*silent, *half_a_head):
        connection.settimeout(10)
        assert read_all(connection) == b"", "closed without an answer"
    for connection in half_a_body:
        connection.settimeout(10)
        assert b" 408 " in read_all(connection)
        connection.close()


def test_a_client_that_never_reads_holds_up_nobody(server):
    body = json.dumps({**json.loads(BODY), "stream": True, "max_tokens": 64}).encode()
    deaf = []
    head = f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {filled(value, server)}\r\n" for name, value in GOOD)
    for _ in range(20):
        connection = connect(server)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(head.encode() + b"\r\n" + body)
        deaf.append(connection)
    began = time.monotonic()
    assert answers_well(server)
    assert time.monotonic() - began < 5
    for connection in deaf:
        connection.close()
    assert answers_well(server)
