"""Where a server listens, and the keys that it takes."""

from __future__ import annotations

import pytest

from llmstages.cli.main import main
from llmstages.core.errors import StageError
from llmstages.serve import server


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_a_host_that_no_request_can_name_is_refused(host):
    with pytest.raises(StageError, match="Give the address that others use"):
        server.bind(host, 0)


def test_a_taken_port_is_named():
    with server.bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(StageError, match=f"127.0.0.1:{port}.*Choose another port"):
            server.bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("short", "8 characters"),
        ("sch\u00fcssel-42", "ASCII"),
        ("two words here", "ASCII"),
        ("a-line\nbreak", "ASCII"),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_before_a_model_is_loaded(key, why, capsys):
    assert main(["serve", "nothing", "--key", key]) != 0
    assert why in capsys.readouterr().err


def test_a_model_in_steady_use_is_not_the_one_that_leaves(tmp_path, monkeypatch):
    from llmstages.pipeline.history import PastRun, StoredArtifact
    from llmstages.serve import pool as pools

    steps = {name: StoredArtifact(name, tmp_path / name, {"kind": "model"}) for name in "abc"}
    monkeypatch.setattr(pools, "open_session", lambda artifact: artifact.name)
    pool = pools.ModelPool(PastRun(steps, "", tmp_path), most_models=2)
    pool.get("a")
    pool.get("b")
    assert pool.loaded("a") and not pool.loaded("c")
    pool.get("c")
    assert pool.loaded("a") and not pool.loaded("b")
