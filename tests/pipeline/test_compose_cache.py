"""A remembered composition is the same run, needs no Hydra, and follows the files it is made of."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmstages.pipeline import compose, compose_cache


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "llmstages" / "compose"


def test_what_is_remembered_equals_what_was_composed(cache):
    for overrides in (
        [],
        ["rl=rejection", "seed=3"],
        ["recipe=smoke", "launch=ddp", "~corpus.filters.pii"],
    ):
        fresh = compose_cache.compose(overrides)
        assert fresh == compose.compose(overrides) == compose_cache.compose(overrides)
    assert len(list(cache.glob("*.json"))) == 3


def test_the_second_time_hydra_is_not_imported(tmp_path):
    script = (
        "import sys; from llmstages.pipeline import compose_cache;"
        " compose_cache.compose(['recipe=smoke']); print('hydra' in sys.modules)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ},
        ).stdout.strip()
        for _ in range(2)
    ]
    assert told == ["True", "False"]


def test_a_changed_file_is_composed_afresh(tmp_path, monkeypatch, install):
    preset = tmp_path / "site-extra" / "extra_conf" / "rl"
    install("extra", "[llmstages.conf]\nextra = extra_conf\n")
    preset.mkdir(parents=True)
    (preset.parent / "__init__.py").write_text("")
    for rate in (1e-5, 2e-5):
        (preset / "mine.yaml").write_text(
            f"defaults:\n  - grpo\n  - _self_\nlearning_rate: {rate}\nmax_steps:"
            f" {int(rate * 1e6)}\n"
        )
        assert compose_cache.compose(["rl=mine"]).slots["rl"]["learning_rate"] == rate


def test_a_broken_entry_or_home_costs_only_time(cache, monkeypatch):
    first = compose_cache.compose([])
    for entry in cache.glob("*.json"):
        entry.write_text("{half")
    assert compose_cache.compose([]) == first
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert compose_cache.compose([]) == first


def test_mistakes_are_not_remembered(cache):
    from llmstages.core.errors import StageError

    with pytest.raises(StageError):
        compose_cache.compose(["rl=grop"])
    assert not list(cache.glob("*.json"))
