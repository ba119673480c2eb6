"""From raw web pages to a tool-using, RL-tuned chat model: every stage a plugin, with lineage.

Example:
    from llmstages import run, step
    chats = step("chats", "dialogues.files", {"path": "chats.jsonl"})
    sft = step("sft", "sft.chat", {"epochs": 1}, model="hub:org/base@main", dialogues=chats)
    artifact = run([chats, sft], store="store")["sft"]

Names are imported on first use, so that ``import llmstages`` costs nothing. Plugin authors import
from ``llmstages.plugin``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmstages.core.errors import StageError
    from llmstages.core.registry import load_component, load_stage
    from llmstages.core.stage import Artifact, Context, Stage, option
    from llmstages.pipeline.api import run, step
    from llmstages.pipeline.plan import Step

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
_MODULES = {
    "Artifact": "core.stage",
    "Context": "core.stage",
    "Stage": "core.stage",
    "StageError": "core.errors",
    "Step": "pipeline.plan",
    "load_component": "core.registry",
    "load_stage": "core.registry",
    "option": "core.stage",
    "run": "pipeline.api",
    "step": "pipeline.api",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("llmstages")
    if name not in _MODULES:
        raise AttributeError(f"module 'llmstages' has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(f"llmstages.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
