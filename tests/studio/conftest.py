"""A run to look at, and a client behind the guard."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmstages.serve.guard import Guard
from llmstages.studio.app import Studio, make_app
from tests.small_run import last as last
from tests.small_run import made as made

HOST = "127.0.0.1:8321"
TOKEN = "secret"


@pytest.fixture
def studio(last, made, tmp_path) -> Studio:
    """What people write goes to a folder of the test."""

    class Elsewhere(Studio):
        notes = tmp_path / "studio"  # pyright: ignore[reportAssignmentType]

    return Elsewhere(last, (made / "runs"))


class Client:
    """Asks a studio as its page does."""

    def __init__(self, studio: Studio) -> None:
        testclient = pytest.importorskip("starlette.testclient")
        guard = Guard(make_app(studio), TOKEN, frozenset({HOST}))
        self.raw = testclient.TestClient(guard, base_url=f"http://{HOST}")
        self.headers = {"authorization": f"Bearer {TOKEN}"}

    def get(self, path: str, status: int = 200) -> Any:
        response = self.raw.get(path, headers=self.headers)
        assert response.status_code == status, response.text
        return response.json()

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        response = self.raw.post(path, headers=self.headers, json=body)
        assert response.status_code == status, response.text
        return response.json()

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        response = self.raw.post(path, headers=self.headers, json=body)
        assert response.status_code == 200, response.text
        return [json.loads(line) for line in response.text.splitlines()]


@pytest.fixture
def client(studio) -> Client:
    return Client(studio)
