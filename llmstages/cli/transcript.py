"""Conversations as a file of dialogues, which can be looked through, edited and trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from llmstages.core.errors import StageError
from llmstages.text.messages import Message, message


class Transcript:
    """A JSON lines file with one dialogue a line, which grows while the conversation does."""

    def __init__(self, path: Path) -> None:
        """Raises StageError if the file cannot be written. Lines that it has are kept."""
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise StageError(f"cannot write the transcript {path}: {error.strerror}") from error
        self._start = self._file.tell()
        self._system = ""
        self._dialogue: list[Message] = []

    def add(self, exchange: Sequence[Message], system: str, continues: bool) -> None:
        """Write an exchange: into the line of its conversation, or as the first of another one.

        Args:
            exchange: the turns from a question to its answer.
            system: the system message, "" for none.
            continues: whether the model read the exchanges before it.
        """
        if not continues or system != self._system or not self._dialogue:
            self._start = self._file.seek(0, os.SEEK_END)
            self._system = system
            self._dialogue = [message("system", system)] if system else []
        self._dialogue += exchange
        line = json.dumps({"messages": self._dialogue}, ensure_ascii=False)
        self._file.truncate(self._start)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
