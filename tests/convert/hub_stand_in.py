"""A small Hugging Face Hub on this machine: what its client calls to create and fill a repository.

The paths and answers follow the calls of huggingface_hub (hf_api.py, _commit_api.py, lfs.py). Git
LFS objects and commits are kept in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_standin0123456789"
LARGE = (".safetensors", ".gguf")  # what the Hub stores by Git LFS


class Hub(ThreadingHTTPServer):
    """The state of the Hub.

    Attributes:
        repositories: ORG/NAME -> {private, branches: {name: {path: bytes}}, commits}.
        objects: sha256 -> bytes of a large file.
        writable: organizations in which repositories may be created.
        failing_puts: uploads of large files that will fail, as if the connection broke.
        sent: sha256 of each large file, every time that it was sent.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.writable = {"me"}
        self.failing_puts = 0
        self.sent: list[str] = []
        self.calls: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, private: bool = True) -> None:
        self.repositories[name] = {"private": private, "branches": {"main": {}}, "commits": []}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the context ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """No lines on standard error."""

    def do_GET(self) -> None:
        self._dispatch()

    def do_POST(self) -> None:
        self._dispatch()

    def do_PUT(self) -> None:
        body = self._body()
        if self.server.failing_puts:
            self.server.failing_puts -= 1
            return self._answer(403, {"error": "the storage refuses"})
        digest = self.path.rpartition("/")[2]
        self.server.sent.append(digest)
        assert hashlib.sha256(body).hexdigest() == digest
        self.server.objects[digest] = body
        return self._answer(200, {})

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _dispatch(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        self.server.calls.append(f"{self.command} {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate_card(json.loads(body)["content"])
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        parts = path.removeprefix("/api/models/").split("/")
        name = "/".join(parts[:2])
        if name not in self.server.repositories:
            return self._answer(404, {"error": "Repository not found"})
        action = parts[2] if len(parts) > 2 else "info"
        return getattr(self, f"_{action}")(name, parts[3] if len(parts) > 3 else "main", body)

    def _create(self, wanted: dict[str, Any]) -> None:
        organization = wanted.get("organization") or "me"
        name = f"{organization}/{wanted['name']}"
        if organization not in self.server.writable:
            return self._answer(403, {"error": f"You don't have the rights to create {name}"})
        if name in self.server.repositories:
            message = "You already created this model repo"
            return self._answer(409, {"error": message, "url": f"{self.server.address}/{name}"})
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.server.add(name, private)
        return self._answer(200, {"url": f"{self.server.address}/{name}"})

    def _validate_card(self, text: str) -> None:
        """As the Hub does: the metadata are YAML, and the license is one that it knows."""
        import yaml

        card = text.split("---\n")
        errors = []
        try:
            metadata = yaml.safe_load(card[1]) if text.startswith("---\n") else {}
            license = metadata.get("license", "mit")
            if license not in ("mit", "apache-2.0"):
                errors.append({"message": f'"license" must be one of mit, apache-2.0: {license}'})
        except (yaml.YAMLError, AttributeError) as error:
            errors.append({"message": f"not YAML: {error}"})
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _info(self, name: str, branch: str, body: bytes) -> None:
        repository = self.server.repositories[name]
        self._answer(
            200,
            {
                "id": name,
                "modelId": name,
                "sha": "0" * 40,
                "private": repository["private"],
                "tags": [],
                "siblings": [],
            },
        )

    _revision = _info

    def _branch(self, name: str, branch: str, body: bytes) -> None:
        branches = self.server.repositories[name]["branches"]
        if branch in branches:
            return self._answer(409, {"error": "Reference already exists"})
        branches[branch] = dict(branches["main"])
        return self._answer(200, {})

    def _preupload(self, name: str, branch: str, body: bytes) -> None:
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        self._answer(200, {"files": files})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for item in wanted["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.server.objects:
                address = f"{self.server.address}/objects/{item['oid']}"
                entry["actions"] = {"upload": {"href": address}}
            objects.append(entry)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, branch: str, body: bytes) -> None:
        repository = self.server.repositories[name]
        files = repository["branches"][branch]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "header":
                repository["commits"].append(value["summary"])
        oid = hashlib.sha1(body).hexdigest()
        address = f"{self.server.address}/{name}/commit/{oid}"
        self._answer(200, {"commitUrl": address, "commitOid": oid, "success": True})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Error-Message", value.get("error", ""))
        self.end_headers()
        self.wfile.write(content)
