"""Shared fixtures: toy stages, packages made on the spot, and the command line as users meet it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(
    prefix="llmstages-tests-"
)  # remembered compositions stay out of the home folder
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell that runs tests in the background ignores it, and what ignores it hands that on
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup likewise
TOYS = Path(__file__).parent / "pipeline" / "toys"


@pytest.fixture(autouse=True)
def fresh_registry():
    """The registry remembers what is installed; a test may have installed something."""
    from llmstages.core import registry

    yield
    registry.entries.cache_clear()
    registry.load.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch) -> Callable[..., None]:
    """install(name, entry_points, module_text): a package on the path, as pip would leave it."""

    def make(name: str, points: str, text: str = "") -> None:
        folder = tmp_path / f"site-{name}"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        if text:
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        _forget()

    return make


@pytest.fixture
def toys(tmp_path, monkeypatch) -> Path:
    """The toy stages installed, in an empty folder that is the current one."""
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    monkeypatch.delenv("TOY", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    _forget()
    return folder


@pytest.fixture
def cli(toys) -> Callable[..., Any]:
    """cli("plan", "seed=1"): the command in its own process, never a traceback.

    The result has code, out, err, and json: the object on the last line, if there is one.
    """

    def call(*words: str, **environment: str) -> SimpleNamespace:
        done = subprocess.run(
            [sys.executable, "-m", "llmstages", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        last = done.stdout.strip().splitlines()[-1:] or [""]
        return SimpleNamespace(
            code=done.returncode,
            out=done.stdout,
            err=done.stderr,
            json=json.loads(last[0]) if last[0][:1] == "{" else None,
        )

    return call


def _forget() -> None:
    from llmstages.core import registry

    registry.entries.cache_clear()
    registry.load.cache_clear()
