"""Connections that never say what they want are closed.

uvicorn closes connections that are idle between two requests, but waits for ever for the first
one, and for the rest of a head that comes a byte at a time (Slowloris).
"""

from __future__ import annotations

from typing import Any

HEAD_SECONDS = 5.0  # in which the head of a request must have arrived


def impatient_protocol() -> type:
    """uvicorn's HTTP/1.1 protocol with a limit of time for the head of a request."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class ImpatientProtocol(H11Protocol):
        """Looks every HEAD_SECONDS; who waited at two looks in succession is closed."""

        _waited = False
        _timer: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._look_again()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer:
                self._timer.cancel()
            super().connection_lost(exc)

        def _look_again(self) -> None:
            self._timer = self.loop.call_later(HEAD_SECONDS / 2, self._look)

        def _look(self) -> None:
            is_answered = self.cycle is None or self.cycle.response_complete
            waits = is_answered and self.conn.their_state is h11.IDLE
            if waits and self._waited:
                self.transport.close()
                return
            self._waited = waits
            self._look_again()

    return ImpatientProtocol
