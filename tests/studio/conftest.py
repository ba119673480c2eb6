"""A run to look at, made once for the tests of a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmstages.pipeline import history
from tests.small_run import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a store and a run: a base model, a chat model with tools, one without."""
    here = tmp_path_factory.mktemp("studio")
    make_run(here)
    return here


@pytest.fixture
def last(made, monkeypatch) -> history.PastRun:
    monkeypatch.chdir(made)
    return history.last_run()
