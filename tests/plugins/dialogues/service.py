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
    """answer(what the user asks, number of the request) -> a text, a whole body (dict or bytes), an HTTP status, or (status, headers); a float: seconds
    of silence. Yields the server: .url, .asked (bodies), .headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.asked.append({"path": self.path, **body})
                server.seen.append(dict(self.headers))
                number = len(server.asked)
            said = answer(body["messages"][-1]["content"], number)
            if isinstance(said, float):
                time.sleep(said)
                return
            status, headers = (
                said
                if isinstance(said, tuple)
                else (said, {})
                if isinstance(said, int)
                else (200, {})
            )
            payload = (
                said
                if isinstance(said, bytes)
                else json.dumps(
                    said
                    if isinstance(said, dict)
                    else completion(said)
                    if status == 200
                    else {"error": self.headers.get("Authorization")}
                ).encode()
            )
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None: ...

    lock = threading.Lock()
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.seen, server.url = (
        [],
        [],
        f"http://127.0.0.1:{server.server_address[1]}/v1",
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
