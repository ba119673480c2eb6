"""Requests that a hostile page or program could send to a local server, as bytes or as options.

Each attack must be refused (a status from 400 on, or a closed connection) or be harmless (a status
of 200 whose body has nothing that it asked for).
"""

from __future__ import annotations

import json
from typing import NamedTuple

CHAT = "/v1/chat/completions"
QUESTION = {"model": "helper", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
LOGO = "/etc/passwd"


class Attack(NamedTuple):
    """One request.

    Attributes:
        name: for the test's report.
        method, path, headers, body: of the request. {host} and {token} in them are replaced by the
            server's own.
        statuses: that are fine.
    """

    name: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    statuses: tuple[int, ...] = (400, 401, 403, 404, 405, 408, 413, 414, 415, 431)


HOST = ("Host", "{host}")
TOKEN = ("Authorization", "Bearer {token}")
JSON = ("Content-Type", "application/json")
GOOD = (HOST, TOKEN, JSON)
BODY = json.dumps(QUESTION).encode()


def body_with(**changes: object) -> bytes:
    """A good request with other fields."""
    return json.dumps({**QUESTION, **changes}).encode()


def tool_with(parameters: object) -> object:
    """A tool with a schema of its parameters."""
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


TRAVERSAL = [
    Attack(f"traversal {path}", "GET", path, (HOST, TOKEN))
    for path in (
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%5c..%5c..%5cetc%5cpasswd",
        "/....//....//etc/passwd",
        "/views/../../../../../../etc/passwd",
        "/views/%2e%2e/%2e%2e/app.py",
        "/../app.py",
        "/..%252f..%252fetc%252fpasswd",
        "/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
        "//etc/passwd",
        "/%00/etc/passwd",
        "/index.html%00.js/../../app.py",
        "/file:///etc/passwd",
        "/views/runs.js/../../../chat.py",
        "/.git/config",
        "/record.json",
        "/helper/config.json",
        "/store/helper/model.safetensors",
        "/api/lineage/..%2f..%2fetc%2fpasswd",
        "/api/lineage/%2e%2e",
        "/api/artifact/helper/..%2f..%2f..%2fetc",
        "/api/artifact/helper/.locks",
        "/api/step/..%2f..%2fetc%2fpasswd",
        "/api/step/%2e%2e%2frun",
        "/api/lineage/" + "a" * 9000,
    )
]
REBINDING = [
    Attack(f"host {host}", "GET", "/api/run", (("Host", host), TOKEN))
    for host in (
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost:80",
        "127.0.0.1.evil.example:{port}",
        "localhost.evil.example:{port}",
        "0.0.0.0:{port}",
        "127.1:{port}",
        "2130706433:{port}",
        "0x7f000001:{port}",
        "[::ffff:127.0.0.1]:{port}",
        "[::]:{port}",
        "192.168.0.1:{port}",
        "127.0.0.1:{port}@evil.example",
        "evil.example#127.0.0.1:{port}",
        "127.0.0.1:{port}.",
        "",
    )
] + [
    Attack("host twice", "GET", "/api/run", (HOST, ("Host", "evil.example"), TOKEN)),
    Attack("no host", "GET", "/api/run", (TOKEN,)),
    Attack(
        "absolute target", "GET", "http://evil.example/api/run", (("Host", "evil.example"), TOKEN)
    ),
    Attack(
        "forwarded host",
        "GET",
        "/api/run",
        (("Host", "evil.example"), ("X-Forwarded-Host", "{host}"), TOKEN),
    ),
    Attack("page itself at another name", "GET", "/", (("Host", "evil.example:{port}"),)),
]
CROSS_SITE = (
    [
        Attack(f"origin {origin}", "POST", CHAT, (*GOOD, ("Origin", origin)), BODY)
        for origin in (
            "http://evil.example",
            "https://{host}",
            "null",
            "http://{host}.evil.example",
            "http://127.0.0.1:1",
            "http://localhost",
            "file://",
            "chrome-extension://abcdef",
            "http://evil.example http://{host}",
        )
    ]
    + [
        Attack(f"fetch site {site}", "POST", CHAT, (*GOOD, ("Sec-Fetch-Site", site)), BODY)
        for site in ("cross-site", "same-site", "unknown")
    ]
    + [
        Attack(
            "form post",
            "POST",
            CHAT,
            (HOST, ("Content-Type", "application/x-www-form-urlencoded")),
            b"model=helper",
        ),
        Attack("text/plain post", "POST", CHAT, (HOST, ("Content-Type", "text/plain")), BODY),
        Attack(
            "multipart post",
            "POST",
            CHAT,
            (HOST, ("Content-Type", "multipart/form-data; boundary=a")),
            b"--a--",
        ),
        Attack(
            "text/plain with the token",
            "POST",
            CHAT,
            (HOST, TOKEN, ("Content-Type", "text/plain")),
            BODY,
        ),
        Attack("no content type", "POST", CHAT, (HOST, TOKEN), BODY),
        Attack(
            "json in a parameter",
            "POST",
            CHAT,
            (HOST, TOKEN, ("Content-Type", "text/plain; application/json")),
            BODY,
        ),
        Attack("two content types", "POST", CHAT, (*GOOD, ("Content-Type", "text/plain")), BODY),
        Attack(
            "preflight",
            "OPTIONS",
            CHAT,
            (HOST, ("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST")),
        ),
        Attack("vote without the token", "POST", "/api/vote", (HOST, JSON), b"{}"),
        Attack("delete without the token", "POST", "/api/dialogues/delete", (HOST, JSON), b"{}"),
        Attack("get that would write", "GET", "/api/dialogues/delete?id=1", (HOST, TOKEN)),
        Attack("method override", "GET", CHAT, (*GOOD, ("X-HTTP-Method-Override", "POST"))),
        Attack(
            "image tag",
            "GET",
            "/api/run",
            (HOST, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Dest", "image")),
        ),
    ]
)
TOKENS = [
    Attack(f"token {number}", "GET", "/api/run", (HOST, *headers))
    for number, headers in enumerate(
        (
            (),
            (("Authorization", ""),),
            (("Authorization", "Bearer"),),
            (("Authorization", "Bearer "),),
            (("Authorization", "Bearer wrong"),),
            (("Authorization", "Basic {token}"),),
            (("Authorization", "bearer {token}"),),
            (("Authorization", "Bearer {token}x"),),
            (("Authorization", "Bearer " + "a" * 5000),),
            (("Authorization", "Bearer {token}"), ("Authorization", "Bearer x")),
            (("Cookie", "token={token}"),),
            (("X-Api-Key", "{token}"),),
            (("Authorization", "Bearer \xff\xfe"),),
        )
    )
] + [
    Attack("token in the query", "GET", "/api/run?token={token}", (HOST,)),
    Attack("token in the path", "GET", "/api/{token}/run", (HOST,)),
    Attack("protected path in capitals", "GET", "/API/run", (HOST,)),
    Attack("protected path with two slashes", "GET", "//api/run", (HOST,)),
    Attack("protected path encoded", "GET", "/%61pi/run", (HOST,)),
    Attack("protected path behind a dot", "GET", "/./api/run", (HOST,)),
    Attack("protected path of the other API", "GET", "/v1/models", (HOST,)),
]
BODIES = [
    Attack(f"body {name}", "POST", CHAT, GOOD, body)
    for name, body in (
        ("empty", b""),
        ("not JSON", b"{"),
        ("a list", b"[]"),
        ("a number", b"1"),
        ("null", b"null"),
        ("invalid UTF-8", b'{"model": "\xff"}'),
        ("deep", b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
        ("a deep list", b"[" * 100_000),
        ("2 MB", b'{"model": "' + b"a" * (2 << 20) + b'"}'),
        ("no messages", body_with(messages=None)),
        ("messages of numbers", body_with(messages=[1, 2])),
        ("an unknown role", body_with(messages=[{"role": "root", "content": "x"}])),
        ("content that is an object", body_with(messages=[{"role": "user", "content": {"a": 1}}])),
        ("10,000 messages", body_with(messages=[{"role": "user", "content": "x"}] * 10_000)),
        (
            "half a surrogate",
            b'{"model": "helper", "messages": [{"role": "user", "content": "\\ud800"}]}',
        ),
        (
            "NaN",
            BODY[:-1] + b', "temperature": NaN}',
        ),
        ("an endless temperature", body_with(temperature=1e308)),
        ("a negative temperature", body_with(temperature=-1)),
        ("a temperature as text", body_with(temperature="0")),
        ("2**70 tokens", body_with(max_tokens=2**70)),
        ("0.5 tokens", body_with(max_tokens=0.5)),
        ("a million answers", body_with(n=1_000_000)),
        ("a seed of the wrong type", body_with(seed=[])),
        ("top_p of 2", body_with(top_p=2)),
        ("stop texts by the thousand", body_with(stop=["a"] * 1000)),
        ("stop that is an object", body_with(stop={"a": 1})),
        ("tools that are no tools", body_with(tools=[{"type": "function"}])),
        ("tools that are text", body_with(tools="rm -rf")),
        (
            "a forced call",
            body_with(tool_choice={"type": "function", "function": {"name": "python"}}),
        ),
        ("400 digits of tokens", body_with(max_tokens=10**400)),
        ("a temperature of 400 digits", body_with(temperature=10**400)),
        ("a seed of 400 digits", body_with(seed=10**400)),
        ("a stream that is a text", body_with(stream="yes")),
        ("no tokens", body_with(max_completion_tokens=0)),
        ("parameters that are a number", body_with(tools=[tool_with(5)])),
        ("properties that are a number", body_with(tools=[tool_with({"properties": 5})])),
        ("properties that are a list", body_with(tools=[tool_with({"properties": [1]})])),
        (
            "more text than the context",
            body_with(messages=[{"role": "user", "content": "x" * 9000}]),
        ),
        ("a digit bomb", b'{"model": "helper", "max_tokens": ' + b"9" * 10_000 + b"}"),
    )
]
MODELS = [
    Attack(f"model {name!r}", "POST", CHAT, GOOD, body_with(model=name))
    for name in (
        "../../etc",
        "/etc/passwd",
        "./helper",
        "helper/../plain",
        "hub:evil/model",
        "evil/model",
        "https://evil.example/model",
        "file:///etc/passwd",
        "helper\x00",
        "",
        "a" * 10_000,
        "<script>alert(1)</script>",
        "pages",
        ["helper"],
        {"$ref": "helper"},
        None,
    )
]
ATTACKS = [*TRAVERSAL, *REBINDING, *CROSS_SITE, *TOKENS, *BODIES, *MODELS]
