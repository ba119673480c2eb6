"""A run with models to talk to, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmstages.pipeline import history
from tests.small_run import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    here = tmp_path_factory.mktemp("chat")
    make_run(here)
    return here


@pytest.fixture
def last(made, monkeypatch) -> history.PastRun:
    monkeypatch.chdir(made)
    return history.last_run()
