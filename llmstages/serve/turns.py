"""Replies that are made at once take turns, a token each, in the order in which they ask.

Threads that compute at the same time would fight for the same cores, and a queue of whole replies
would let the last one wait for all others. With turns every reply gets its first token soon, and
none is faster than the others. Each reply has random numbers of its own, so that a seed gives the
same reply whoever else is served.

Left out on purpose: computing the replies as one batch. It would give more tokens a second where
many chat at once; a server for one person has few.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmstages.core.errors import StageError

MOST_WAITING = 64  # replies in the making; more are refused


class Busy(StageError):
    """So many replies are being made that another one would wait too long."""


class Turns:
    """A lock that is given to those who wait in the order in which they came."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False
        self._inside = 0  # replies in the making
        self._tools = threading.Lock()

    @contextmanager
    def one_reply(self, seed: int | None = None) -> Iterator[Reply]:
        """Take part until the block ends; the block has the first turn when it begins.

        Args:
            seed: of the reply's random numbers; None draws one.

        Raises:
            Busy: too many replies are in the making.
        """
        with self._lock:
            if self._inside >= self.most:
                raise Busy(f"{self._inside} replies are being made already; ask again later")
            self._inside += 1
        reply = Reply(self, seed)
        try:
            reply.take()
            yield reply
        finally:
            reply.leave()
            with self._lock:
                self._inside -= 1

    def _acquire(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()  # whoever gives it away leaves it taken

    def _release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False

    def _is_wanted(self) -> bool:
        with self._lock:
            return bool(self._waiting)


class Reply:
    """The part of one reply in the turns.

    Attributes:
        has_turn: whether it may compute now.
    """

    def __init__(self, turns: Turns, seed: int | None) -> None:
        import torch

        self._turns = turns
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        self._random: Any = generator.get_state()
        self.has_turn = False

    def take(self) -> None:
        """Wait for the turn."""
        import torch

        self._turns._acquire()
        self.has_turn = True
        torch.set_rng_state(self._random)

    def leave(self) -> None:
        """Give the turn away, if it is there."""
        import torch

        if not self.has_turn:
            return
        self._random = torch.get_rng_state()
        self.has_turn = False
        self._turns._release()

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """A block that waits for tools: meanwhile the others compute.

        Tools are shared by all conversations and may keep a state, so one block runs at a time.
        """
        self.leave()
        try:
            with self._turns._tools:
                yield
        finally:
            self.take()

    def next_token(self) -> None:
        """Let the others compute a token each, if anybody waits."""
        if self._turns._is_wanted():
            self.leave()
            self.take()
