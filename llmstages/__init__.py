"""From raw web pages to a tool-using, RL-tuned chat model: every stage a plugin, every result an artifact with lineage.

    from llmstages import run, step
    chats = step("chats", "dialogues.files", {"path": "chats.jsonl"})
    sft = step("sft", "sft.chat", {"epochs": 1}, model="hub:org/base@main", dialogues=chats)
    artifact = run([chats, sft], store="store")["sft"]

Names are imported on first use, so that ``import llmstages`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "Artifact",
    "Context",
    "Stage",
    "StageError",
    "Step",
    "load_component",
    "load_stage",
    "option",
    "run",
    "step",
]
_HOMES = {
    "Artifact": "core.stage",
    "Context": "core.stage",
    "Stage": "core.stage",
    "StageError": "core.errors",
    "option": "core.stage",
    "Step": "pipeline.plan",
    "load_component": "core.registry",
    "load_stage": "core.registry",
    "run": "pipeline.api",
    "step": "pipeline.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'llmstages' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(f"llmstages.{_HOMES[name]}"), name)
