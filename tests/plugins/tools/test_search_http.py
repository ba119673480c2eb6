"""The tool search_http against a service on this machine: its forms, its failures, and its key."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.tools.search_http import SearchHTTP, SearchHTTPConfig, at
from llmstages.text import generate

RESULTS = {
    "results": [
        {"title": "Quay", "url": "https://a.example/1", "content": "The ferryman crosses."},
        {"title": "Mill", "url": "https://a.example/2", "content": "The miller sleeps."},
    ]
}
SHOWN = (
    "[1] Quay https://a.example/1\nThe ferryman crosses.\n\n"
    "[2] Mill https://a.example/2\nThe miller sleeps."
)
KEY = "sk-a-key-of-the-service"


class Slowly(list):
    """Parts of a body, with a tenth of a second between them."""


@pytest.fixture
def service():
    """A service; ``answers`` are taken in turn, the last one again: a body, or (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length") or 0)
            server.seen.append(
                (self.command, self.path, dict(self.headers), self.rfile.read(length))
            )
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            status, body = answer if isinstance(answer, tuple) else (200, answer)
            parts = body if isinstance(body, Slowly) else [body]
            parts = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in parts]
            self.send_response(status)
            self.send_header("Content-Length", str(sum(map(len, parts))))
            if status == 302:
                self.send_header("Location", f"{server.url}/elsewhere")
            self.end_headers()
            for part in parts:
                self.wfile.write(part)
                self.wfile.flush()
                if len(parts) > 1:
                    time.sleep(0.1)

        do_POST = do_GET

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.answers, server.seen = [RESULTS], []
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that does not read to the end
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tool(service, path="/search", **config):
    return SearchHTTP(SearchHTTPConfig(endpoint=service.url + path, wait=0.0, **config))


def test_a_query_is_a_parameter_and_results_have_titles(service):
    search = tool(service, "/search?format=json", parameters={"lang": "en"})
    assert search("who &  crosses=?") == SHOWN
    ((method, path, headers, _),) = service.seen
    asked = {"format": ["json"], "lang": ["en"], "q": ["who & crosses=?"]}
    assert method == "GET" and parse_qs(urlsplit(path).query) == asked
    assert "Authorization" not in headers
    assert [source["url"] for source in search.sources] == [
        "https://a.example/1",
        "https://a.example/2",
    ]
    assert search.sources[0]["title"] == "Quay"


def test_a_query_in_a_template_cannot_leave_its_place(service):
    search = tool(service, "/find/{query}/all?n=2")
    search("../admin?x=1#y")
    (_, path, _, _), *_ = service.seen
    assert path == "/find/..%2Fadmin%3Fx%3D1%23y/all?n=2"
    for query in ("..", " . ", "", "\n"):
        assert search(query) == "nothing found"
    assert len(service.seen) == 1


def test_a_posted_query_is_json(service):
    search = tool(service, method="POST", parameter="query", parameters={"size": 3})
    assert search('a "quote" \u6771\u4eac') == SHOWN
    ((method, _, _, body),) = service.seen
    assert method == "POST"
    assert json.loads(body) == {"query": 'a "quote" \u6771\u4eac', "size": 3}


@pytest.mark.parametrize(
    "answer, options, shown",
    [
        (["one", "two"], {"results_path": ""}, "[1]\none\n\n[2]\ntwo"),
        (
            {"hits": {"hits": [{"_source": {"text": "deep", "t": 7}}]}},
            {"results_path": "hits.hits", "text_field": "_source.text", "title_field": "_source.t"},
            "[1] 7\ndeep",
        ),
        ({"a.b": [{"content": ["x", "y", 3]}]}, {"results_path": "a.b"}, "[1]\nx y"),
        ([[0, ["first"]]], {"results_path": "0.1", "titles": False}, "first"),
        ({"results": []}, {}, "nothing found"),
        ({"results": [{"content": None}, {"title": "no text"}, 7, {}]}, {}, "[1]\n7"),
        ({"results": [{"content": "\ud800 a\u0000b"}]}, {"titles": False}, "\ufffd ab"),
        (RESULTS, {"results": 1, "titles": False, "max_characters": 12}, "\u2026ferryman c\u2026"),
    ],
)
def test_answers_of_many_forms(service, answer, options, shown):
    service.answers = [answer]
    assert tool(service, **options)("ferryman") == shown


@pytest.mark.parametrize(
    "answer, options, error",
    [
        (b"<html>no", {}, "error: the answer is not JSON: <html>no"),
        (b"[" * 100_000, {}, "error: the answer is not JSON"),
        ({"items": []}, {}, "error: the answer has no list at 'results'; it has: items"),
        (3, {}, "error: the answer has no list at 'results'; it has: int"),
        ((404, {"no": 1}), {}, 'error: the search service failed: HTTP 404: {"no": 1}'),
        ((500, b""), {}, "error: the search service failed: HTTP 500"),
        ((302, b""), {}, "error: the search service failed: HTTP 302"),
        (b" " * 3000, {"max_bytes": 2000}, "error: the answer has more than 2000 bytes"),
        (Slowly([b" "] * 20), {"timeout": 0.5, "retries": 0}, "no whole answer in 0.5 seconds"),
    ],
)
def test_what_fails_is_text(service, answer, options, error):
    service.answers = [answer]
    search = tool(service, **options)
    result = search("ferryman")
    assert result.startswith("error: ") and error in result and len(result) < 400
    assert search.sources == []
    assert all(path.startswith("/search") for _, path, _, _ in service.seen)


def test_a_failed_request_is_repeated_where_that_may_help(service):
    service.answers = [(503, b""), (429, b""), RESULTS]
    assert tool(service)("ferryman") == SHOWN
    service.seen.clear()
    service.answers = [(503, b"")]
    assert "HTTP 503" in tool(service, retries=1)("ferryman")
    assert len(service.seen) == 2
    service.seen.clear()
    service.answers = [(400, b"bad")]
    assert "HTTP 400: bad" in tool(service)("ferryman")
    assert len(service.seen) == 1


def test_nobody_answers():
    search = SearchHTTP(SearchHTTPConfig(endpoint="http://127.0.0.1:9/", retries=1, wait=0.0))
    assert search("x").startswith("error: the search service failed: ConnectError")


@pytest.mark.parametrize("variable", ["MY_SEARCH", "SEARCH_API_KEY"])
def test_the_key_is_sent_and_never_shown_or_recorded(service, variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, KEY)
    spec = {
        "use": "search_http",
        "endpoint": service.url,
        "key_variable": variable,
        "key_header": "X-Api",
        "key_prefix": "Token ",
        "retries": 0,
    }
    tables.write_json(tmp_path / "tools.json", {"web": spec})
    search = generate.open_tools(tmp_path)["web"]
    texts = []
    for answer in (
        {"results": [{"content": f"you sent {KEY}", "title": KEY, "url": f"u?{KEY}"}]},
        (403, f"bad key {KEY}".encode()),
        {KEY: 1},
        f"{'x' * 190}{KEY}".encode(),
    ):
        service.answers = [answer]
        texts.append(search("x") + json.dumps(search.sources))
    assert all(headers["X-Api"] == f"Token {KEY}" for _, _, headers, _ in service.seen)
    assert not [text for text in texts if KEY[:8] in text]
    assert KEY not in (tmp_path / "tools.json").read_text()
    monkeypatch.setenv(variable, "two\nlines")
    assert search("x") == (
        f"error: search_http: the environment variable {variable} does not hold a key: "
        "it has line breaks or letters beyond ASCII"
    )


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, "needs a value for tool.endpoint"),
        ({"endpoint": "localhost:8080"}, "endpoint must be an address"),
        ({"endpoint": "ftp://a.example"}, "endpoint must be an address"),
        ({"endpoint": "https://me:secret@a.example"}, "holds a password or a key"),
        ({"endpoint": "https://a.example?api_key=1"}, "holds a password or a key"),
        ({"endpoint": "https://{query}.example"}, "must not take its host from the query"),
        ({"key_variable": "sk-123"}, "takes the NAME of an environment variable"),
        ({"headers": {"Authorization": "Bearer x"}}, "headers.Authorization would end in records"),
        ({"headers": {"X-Api-Key": "x"}}, "headers.X-Api-Key would end in records"),
        ({"headers": {"a b": "x"}}, "'a b' is not the name of a header"),
        ({"parameters": {"api_key": "x"}}, "parameters.api_key would end in records"),
        ({"method": "PUT"}, "method"),
        ({"timeout": 0}, "timeout"),
        ({"results": 0}, "results"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_bad_settings_are_refused(values, words):
    endpoint = {"endpoint": "https://a.example"} if values else {}
    with pytest.raises(StageError, match=words) as raised:
        build_config(SearchHTTPConfig, {**endpoint, **values}, "tool")
    assert "secret" not in str(raised.value) and "sk-123" not in str(raised.value)


def test_paths_in_an_answer():
    value = {"a": [{"b": 1}], "a.0": 2}
    assert [at(value, path) for path in ("a.0", "a.0.b", "a.1", "a.x", "c", "")] == [
        2, 1, None, None, None, value
    ]  # fmt: skip
