"""Fixtures of the tests of text."""

from tests.text.hostile import tokenizers

__all__ = ["tokenizers"]
