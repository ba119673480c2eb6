"""The error of a row that cannot be converted."""

from __future__ import annotations

SHOWN = 60  # characters of a bad value in a message


class InvalidRow(ValueError):
    """A row that cannot be converted. rule: a short name to count by."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
