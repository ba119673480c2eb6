"""Fixtures of the tests of dialogues."""

from tests.plugins.dialogues.synthesis import key

__all__ = ["key"]
