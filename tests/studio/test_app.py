"""The application of the studio: what it says about a run, and that its guard is before it."""

from __future__ import annotations

import json

import pytest

from llmstages.pipeline.history import PastRun, StoredArtifact
from llmstages.serve.guard import Guard
from llmstages.studio.app import Studio, make_app

TOKEN = "secret"
HOST = "127.0.0.1:8321"


@pytest.fixture
def client(tmp_path):
    testclient = pytest.importorskip("starlette.testclient")
    (tmp_path / "m").mkdir()
    step = StoredArtifact("m", tmp_path / "m", {"kind": "model", "finished": 1.0, "metrics": {}})
    studio = Studio(PastRun({"m": step}, str(tmp_path), tmp_path), tmp_path / "runs")
    guard = Guard(make_app(studio), TOKEN, frozenset({HOST}))
    return testclient.TestClient(guard, base_url=f"http://{HOST}")


def test_the_page_is_served_without_the_token_and_the_run_only_with_it(client):
    page = client.get("/")
    assert page.status_code == 200 and "<main" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/api/run").status_code == 401
    allowed = client.get("/api/run", headers={"authorization": f"Bearer {TOKEN}"})
    assert json.loads(allowed.text)["models"] == ["m"]
    assert TOKEN not in page.text
