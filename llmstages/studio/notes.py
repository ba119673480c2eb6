"""What people write in the studio, in JSON lines files beside the runs: rows are added, never lost.

A row is written whole and flushed to the disk before the page hears of it. A changed or deleted row
stays in the file; the last one of an ``id`` counts.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError

MOST_BYTES = 100_000_000  # of a file
DELETED = "deleted"


class Notes:
    """One file of rows.

    Args:
        path: the file; it and its folder are made when the first row is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def add(self, row: Mapping[str, Any], id: str = "") -> str:
        """Write a row and return its id.

        Args:
            row: what is written.
            id: of an earlier row, which this one replaces; "" for a new one.

        Raises:
            StageError: the file cannot be written.
        """
        id = id or uuid.uuid4().hex
        line = json.dumps({"id": id, **row}, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    if file.tell() + len(line) > MOST_BYTES:
                        raise StageError(f"{self.path} is full ({MOST_BYTES} bytes); move it away")
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StageError(f"cannot write {self.path}: {error.strerror}") from error
        return id

    def rows(self) -> list[dict[str, Any]]:
        """The rows that count, in the order in which they were first written."""
        if not self.path.exists():
            return []
        last: dict[str, dict[str, Any]] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            row = _read(line)
            if row:
                last[row["id"]] = row
        return [row for row in last.values() if not row.get(DELETED)]


def _read(line: str) -> dict[str, Any] | None:
    """A row; None for half a line, which a full disk or a power cut leaves."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None
