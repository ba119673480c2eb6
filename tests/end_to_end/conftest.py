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
    """The finished run of recipe=smoke. folder: where it ran; nobody writes there but the first run."""

    folder: Path
    done: Done
    seconds: float


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """``llmstages run --json recipe=smoke`` in an empty folder."""
    folder, start = tmp_path_factory.mktemp("smoke"), time.perf_counter()
    return Chain(folder, llmstages(*SMOKE, folder=folder), time.perf_counter() - start)


@pytest.fixture
def copied(smoke: Chain, tmp_path: Path) -> Callable[[], Path]:
    """copied(): a folder of one's own with the finished store in it."""

    def copy() -> Path:
        shutil.copytree(smoke.folder, tmp_path / "copy", symlinks=True)
        return tmp_path / "copy"

    return copy
