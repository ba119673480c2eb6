"""An SFT step on a tiny model, and the messages that the tests of the checks share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.stage import Context
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.text.messages import Message, message
from llmstages.train.checks import Check
from tests.tiny import perform, saved, saved_model

QUESTION = message("user", "Who?")
ANSWER = message("assistant", "Bo Li.")
CALL = message("assistant", "Bo", "search")
RESULT = message("tool", "Ra", "search")
SYSTEM = message("system", "Be brief.")


def short_dialogues(count: int) -> list[list[Message]]:
    return [
        [message("user", f"Where is {i}?"), message("assistant", f"In {i + 1}.")]
        for i in range(count)
    ]


def sft_inputs(folder: Path, dialogues: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A tiny model, and an artifact named ``chats`` with the dialogues."""
    rows = [{"messages": messages} for messages in dialogues]
    return {
        "model": saved_model(folder / "base"),
        "dialogues": (saved(folder / "chats", "dialogues", rows),),
        "corpus": None,
    }


def run_sft(folder: Path, inputs: dict[str, Any], **config: Any) -> Any:
    """The model that SFT makes."""
    made, _ = perform(Chat, folder / "sft", ChatConfig(max_length=96, **config), **inputs)
    return made


def prepare_sft(folder: Path, inputs: dict[str, Any], **config: Any) -> Any:
    """What SFT would train on."""
    return Chat().prepare(
        ChatConfig(max_length=96, **config), Context("sft", folder, folder, inputs)
    )


def saved_checks(folder: Path) -> dict[str, dict[str, Any]]:
    """The checks that ``run_sft`` wrote, by id."""
    rows = json.loads((folder / "sft" / "out" / "checks.json").read_text())
    return {row["id"]: row for row in rows}


def by_id(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.id: check for check in checks}


def all_passed(checks: Iterable[Check]) -> bool:
    return all(check.passed for check in checks)
