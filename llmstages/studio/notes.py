"""What people write in the studio, in JSON lines files beside the runs.

A stage reads the file itself, so it holds the rows that count and no others. Whatever was ever
written, also a row that was changed or deleted later, stays in ``history/`` beside it: each row is
flushed to the disk there before the page hears of it, and the file is made from it.
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
        path: the file; it, its history and their folders are made when the first row is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = path.parent / "history" / path.name
        self._lock = threading.Lock()

    def add(self, row: Mapping[str, Any], id: str = "") -> str:
        """Write a row and return its id.

        Args:
            row: what is written.
            id: of an earlier row, which this one replaces; "" for a new one.

        Raises:
            StageError: it cannot be written.
        """
        id = id or uuid.uuid4().hex
        line = json.dumps({"id": id, **row}, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            try:
                self._append(line)
                self._write_what_counts()
            except OSError as error:
                raise StageError(f"cannot write {self.path}: {error.strerror}") from error
        return id

    def _append(self, line: bytes) -> None:
        self.history.parent.mkdir(parents=True, exist_ok=True)
        with self.history.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size + len(line) > MOST_BYTES:
                raise StageError(f"{self.history} is full ({MOST_BYTES} bytes); move it away")
            if size:
                file.seek(size - 1)
                # Half a line of a full disk or a power cut must not take the next row with it.
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _write_what_counts(self) -> None:
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows()]
        draft.write_text("".join(lines), encoding="utf-8")
        draft.replace(self.path)

    def rows(self) -> list[dict[str, Any]]:
        """The rows that count, in the order in which they were first written."""
        if not self.history.exists():
            return []
        last: dict[str, dict[str, Any]] = {}
        for line in self.history.read_text(encoding="utf-8", errors="replace").splitlines():
            row = _read(line)
            if row:
                last[row["id"]] = row
        return [row for row in last.values() if not row.get(DELETED)]


def _read(line: str) -> dict[str, Any] | None:
    """A row; None for half a line."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None
