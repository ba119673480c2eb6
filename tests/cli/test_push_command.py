"""``llmstages push``: the real client of the Hub against a small hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.convert.hub_stand_in import TOKEN, Hub, running_hub
from tests.convert.models import write_model


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("push") / "model")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/optimizer.pt").write_bytes(b"large")
    (folder / "log.jsonl").write_text("{}\n")
    (folder / "checks.json").write_text("[]")
    return folder


@pytest.fixture
def push(hub, tmp_path):
    def call(*words: object, **changes: str) -> SimpleNamespace:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **changes,
        }
        command = [sys.executable, "-m", "llmstages", "push", *map(str, words)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    return call


def test_a_model_arrives_byte_for_byte_in_a_private_repository(push, hub, model):
    done = push(model, "me/cat")
    assert done.code == 0, done.err
    repository = hub.repositories["me/cat"]
    assert repository["private"] is True
    files = repository["branches"]["main"]
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert files[name] == (model / name).read_bytes(), name
    assert b"# cat" in files["README.md"]
    assert b"TODO: choose a license" in files["README.md"]
    assert not [name for name in files if "optimizer" in name or name in ("log.jsonl", "x")]
    assert len(repository["commits"]) == 1
    assert "private, commit" in done.out
    assert "its card has a TODO" in done.out
    assert TOKEN not in done.out + done.err


def test_what_was_asked_for_is_done(push, hub, model):
    done = push(model, "me/dog", "--public", "--revision", "v2", "--logs", "--license", "mit")
    assert done.code == 0, done.err
    repository = hub.repositories["me/dog"]
    assert repository["private"] is False
    assert not repository["branches"]["main"]
    files = repository["branches"]["v2"]
    assert {"log.jsonl", "checks.json", "model.safetensors"} <= set(files)
    assert b"license: mit" in files["README.md"]
    assert "TODO" not in done.out


def test_an_interrupted_push_sends_only_what_is_missing(push, hub, model):
    hub.failing_puts = 1
    failed = push(model, "me/bird")
    assert failed.code == 2
    assert "me/bird" in failed.err
    assert not hub.repositories["me/bird"]["commits"]
    assert push(model, "me/bird").code == 0
    assert push(model, "me/bird").code == 0
    assert len(hub.sent) == 1


def test_a_card_of_ones_own_is_kept(push, hub, model, tmp_path):
    import shutil

    folder = tmp_path / "mine"
    shutil.copytree(model, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nmy words")
    assert push(folder, "me/own").code == 0
    assert hub.repositories["me/own"]["branches"]["main"]["README.md"].endswith(b"my words")
    (folder / "README.md").write_text("---\nlicense: none-of-these\n---\nmy words")
    refused = push(folder, "me/own")
    assert refused.code == 2
    assert '"license" must be one of' in refused.err
    refused = push(folder, "me/own", "--license", "mit")
    assert refused.code == 2
    assert "--license is for the card" in refused.err


def test_a_repository_that_is_public_already_is_refused(push, hub, model):
    hub.add("me/open", private=False)
    done = push(model, "me/open")
    assert done.code == 2
    assert "exists already and is public" in done.err
    assert not hub.repositories["me/open"]["commits"]
    assert push(model, "me/open", "--public").code == 0


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("me", {}, "has to be ORG/NAME"),
        ("me/a--b", {}, "is not a name of a repository"),
        ("me/a/b", {}, "is not a name of a repository"),
        ("others/cat", {}, "no write access to others"),
        ("me/cat", {"HF_TOKEN": ""}, "nobody is logged in"),
        ("me/cat", {"HF_TOKEN": "hf_wrong0123456789"}, "does not accept the token"),
        ("me/cat", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1"),
        ("me/cat", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_what_goes_wrong_is_said(name, changes, message, push, hub, model):
    done = push(model, name, **changes)
    assert done.code == 2
    assert message in done.err
    assert "hf_wrong" not in done.err
    assert not any(repository["commits"] for repository in hub.repositories.values())


def test_what_is_no_model_is_refused(push, hub, tmp_path):
    (tmp_path / "x").mkdir()
    done = push(tmp_path / "x", "me/cat")
    assert done.code == 2
    assert "neither a model" in done.err
    assert not hub.calls
