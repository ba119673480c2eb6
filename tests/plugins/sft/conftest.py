"""A small model and dialogues for all tests of fine-tuning."""

from __future__ import annotations

import pytest

from tests.tiny import TALK, saved, saved_model


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path / "base")


@pytest.fixture
def chats(tmp_path):
    """The same dialogue four times."""
    return saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
