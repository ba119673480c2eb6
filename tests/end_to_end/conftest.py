"""One run of the smoke chain, shared by all tests of this folder."""

from __future__ import annotations

import dataclasses as dc
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.chain import SMOKE, Done, llmstages


@dc.dataclass(frozen=True)
class Chain:
    """The finished run of recipe=smoke.

    ``folder`` is where it ran. No test writes there: a test that changes the store uses ``copied``.
    """

    folder: Path
    done: Done
    seconds: float


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """``llmstages run --json recipe=smoke`` in an empty folder."""
    folder = tmp_path_factory.mktemp("smoke")
    start = time.perf_counter()
    done = llmstages(*SMOKE, folder=folder)
    return Chain(folder, done, time.perf_counter() - start)


@pytest.fixture
def copied(smoke: Chain, tmp_path: Path) -> Callable[[], Path]:
    """copied() returns a new folder with a copy of the finished store in it."""

    def copy() -> Path:
        shutil.copytree(smoke.folder, tmp_path / "copy", symlinks=True)
        return tmp_path / "copy"

    return copy
