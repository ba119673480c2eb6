"""A passage, and what becomes of it: a row of the problems, or a dropped row with its reason."""

from __future__ import annotations

import dataclasses as dc
import json
from collections import Counter
from typing import Any

from llmstages.core.stage import Context
from llmstages.text.messages import message

EXCERPT = 200  # characters of a passage in dropped/
TASKS = {"probe": "probe", "threshold": "threshold", "test": "passages"}  # role -> task


@dc.dataclass(frozen=True)
class Passage:
    """A part of a document.

    Attributes:
        id: ``DOCUMENT#NUMBER``.
        document: the id of the document.
        url: the address of the document.
        text: whole sentences.
        role: probe, threshold or test.
    """

    id: str
    document: str
    url: str
    text: str
    role: str = "probe"


@dc.dataclass
class Outcome:
    """What became of the passages.

    Attributes:
        rows: the problems.
        dropped: rows of the ``dropped/`` table, one for each passage without a question.
        refused: reason -> number of sentences, spans or passages that were not asked about.
    """

    rows: list[dict[str, Any]] = dc.field(default_factory=list)
    dropped: list[dict[str, str]] = dc.field(default_factory=list)
    refused: Counter[str] = dc.field(default_factory=Counter)

    def drop(self, passage: Passage, reason: str, value: str = "") -> None:
        """Leave a passage without a question."""
        self.refused[reason] += 1
        self.dropped.append(
            {
                "id": passage.id,
                "url": passage.url,
                "rule": reason,
                "value": value,
                "limit": "",
                "excerpt": passage.text[:EXCERPT],
            }
        )

    def report(self, ctx: Context) -> None:
        """Print the reasons with their counts, the most frequent ones first."""
        for reason, count in self.refused.most_common():
            ctx.say(f"{ctx.step}: not asked, {count} times: {reason}")


def row_of(passage: Passage, question: str, answer: str, group: str, method: str) -> dict[str, Any]:
    """A row of the problems."""
    return {
        "prompt": [message("user", question)],
        "answer": answer,
        "task": TASKS[passage.role],
        "group": group,
        "meta": json.dumps({"passage": passage.id}),
        "role": passage.role,
        "style": "chat",
        "passage": passage.text,
        "passage_id": passage.id,
        "document": passage.document,
        "url": passage.url,
        "method": method,
    }
