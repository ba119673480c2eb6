"""An OpenAI-compatible service on this machine, whose answers a test writes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: Any, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
    }


@contextmanager
def service(answer: Callable[[str, int], Any]) -> Iterator[Any]:
    """Run a service.

    Args:
        answer: called with the user's text and the number of the request. It returns a text, a
            whole body (dict or bytes), an HTTP status, (status, headers), or a float: seconds of
            silence.

    Yields:
        the server: ``url``, ``asked`` (bodies of the requests) and ``seen`` (their headers).
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.asked.append({"path": self.path, **body})
                server.seen.append(dict(self.headers))
                number = len(server.asked)
            response = answer(body["messages"][-1]["content"], number)
            if isinstance(response, float):
                time.sleep(response)
                return
            status, headers = 200, {}
            if isinstance(response, tuple):
                status, headers = response
            elif isinstance(response, int):
                status = response
            payload = self.payload(response, status)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def payload(self, response: Any, status: int) -> bytes:
            if isinstance(response, bytes):
                return response
            if isinstance(response, dict):
                return json.dumps(response).encode()
            if status == 200:
                return json.dumps(completion(response)).encode()
            return json.dumps({"error": self.headers.get("Authorization")}).encode()

        def log_message(self, *_: Any) -> None: ...

    lock = threading.Lock()
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.seen = []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
