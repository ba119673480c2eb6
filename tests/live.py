"""An application behind a real server on a free port, guarded as users have it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def live(app: Any) -> Iterator[Any]:
    """Serve an application in a thread. Gives its address (llmstages.serve.server.Address)."""
    uvicorn = pytest.importorskip("uvicorn")
    from llmstages.serve import server

    listener = server.bind("127.0.0.1", 0)
    address = server.new_address(listener, "127.0.0.1")
    running = uvicorn.Server(server.uvicorn_config(app, address))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield address
    finally:
        running.should_exit = True
        thread.join(timeout=10)
