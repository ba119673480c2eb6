"""Runs an application on this machine: its address, its token, uvicorn.

The token stands in the fragment of the address (``#token=...``), which browsers send to nobody,
and is made anew at each start.
"""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.serve.connections import impatient_protocol
from llmstages.serve.guard import App, Guard

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = ("", "0.0.0.0", "::")
IDLE_SECONDS = 5  # after which an idle connection is closed
MOST_HEADERS = 16_384  # bytes of a request's head


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: a name or an IP address of this machine.
        port: the port, which is already bound.
        token: that requests must carry.
    """

    host: str
    port: int
    token: str

    @property
    def base(self) -> str:
        """The address without the token, as API clients take it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def link(self) -> str:
        """The address that a browser opens."""
        return f"{self.base}/#token={self.token}"

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the header ``Host`` that name this server."""
        names = {self.host.lower()}
        if is_loopback(self.host):
            names |= {"127.0.0.1", "localhost", "::1"}
        quoted = {f"[{name}]" if ":" in name else name for name in names}
        return frozenset(f"{name}:{self.port}" for name in quoted)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a host."""
    return host.lower() in ("localhost", "::1") or host.startswith("127.")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: of this machine.
        port: 0 takes a free one.

    Raises:
        StageError: the port is taken, or the host is not one address of this machine.
    """
    if host in EVERY_ADDRESS:
        raise StageError(
            f"{host or 'an empty host'} stands for every address of this machine, but requests "
            "must name the server that they mean. Give the address that others use, such as "
            "--host 192.168.1.5"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StageError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another port: --port 0 "
            "takes a free one"
        ) from error
    return listener


def new_address(listener: socket.socket, host: str, token: str | None = None) -> Address:
    """The address of a bound socket, with a new token if none is given."""
    return Address(host, listener.getsockname()[1], token or secrets.token_urlsafe(24))


def serve(app: App, listener: socket.socket, address: Address, lines: Sequence[str]) -> None:
    """Answer requests until Ctrl-C.

    Args:
        app: what answers; the guard is put before it.
        listener: the bound socket.
        address: of the socket.
        lines: printed once the server is ready to answer.

    Raises:
        StageError: uvicorn is not installed.
    """
    require_packages()
    import uvicorn

    if not is_loopback(address.host):
        print(
            f"warning: {address.host} can be reached from other machines; whoever has the token "
            "can use the models and their tools. The connection is not encrypted",
            file=sys.stderr,
        )
    for line in lines:
        print(line, flush=True)
    uvicorn.Server(uvicorn_config(app, address)).run(sockets=[listener])


def uvicorn_config(app: App, address: Address) -> Any:
    """How uvicorn runs an application, with the guard before it."""
    import uvicorn

    return uvicorn.Config(
        Guard(app, address.token, address.hosts),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=MOST_HEADERS,
        http=impatient_protocol(),
        ws="none",
        lifespan="off",
    )


def require_packages() -> None:
    """Raise StageError if what a server needs is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise StageError(
            f"{error.name} is not installed: pip install 'llmstages[serve]'"
        ) from error
