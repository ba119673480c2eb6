"""The run as the report sees it: every artifact with its record, who made what from what, and which chapter it belongs to.

Nothing is found by the name of a step. What a step is follows from its kind, its slot, its inputs and the files it holds,
so that a recipe of other steps gets a report too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.data import tables

MODELS = ("model", "reward_model")
MARKS = {
    "tools.json": "tools",
    "probe.jsonl": "knowledge",
    "identity.json": "identity",
}  # a file of dialogues -> the chapter of who learns from them


@dataclass(frozen=True)
class View:
    """One finished step. A folder without a record (a hand-made artifact) has an empty one."""

    name: str
    kind: str
    path: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.record.get("metrics") or {}

    @property
    def config(self) -> dict[str, Any]:
        return self.record.get("config") or {}

    @property
    def stage(self) -> str:
        return str(self.record.get("stage") or "")

    @property
    def slot(self) -> str:
        return self.stage.split(".")[0]

    @property
    def feeds(self) -> list[str]:
        """Names of what it took, each once, in order."""
        return list(
            dict.fromkeys(
                name for names in (self.record.get("inputs") or {}).values() for name in names
            )
        )

    def has(self, file: str) -> bool:
        return (self.path / file).exists()

    def json(self, file: str, default: Any = None) -> Any:
        """A JSON file of the artifact; ``default`` when it is absent."""
        path = self.path / file
        if not path.exists():
            return default
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StageError(
                f"{path} is no JSON ({error}); redo the step: llmstages redo {self.name}"
            ) from error

    def lines(self, file: str) -> list[dict[str, Any]]:
        """A JSON-lines file; empty when it is absent."""
        return tables.read_lines(self.path / file)

    def table(self, name: str = "data") -> Any:
        """An Arrow table of the artifact, or an empty list."""
        return tables.load(self.path / name) if self.has(name) else []

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """What the trainer logged."""
        return self.lines("log.jsonl")


class Chain:
    """All steps before the report, in the recipe's order."""

    def __init__(self, artifacts: Iterable[Artifact]) -> None:
        self.steps = [View(a.name, a.kind, a.path, _record(a.path)) for a in artifacts]
        self.by_name = {step.name: step for step in self.steps}

    def kind(self, *kinds: str) -> list[View]:
        return [step for step in self.steps if step.kind in kinds]

    def parents(self, step: View) -> list[View]:
        """Steps of this run that a step took; sources from outside have no record and are left out."""
        return [self.by_name[name] for name in step.feeds if name in self.by_name]

    def chapter(self, step: View) -> str:
        """The id of the chapter a step belongs to."""
        fed = self.parents(step)
        if step.kind in ("documents", "corpus"):
            return "web"
        if step.kind == "tokenizer":
            return "tokens"
        if step.kind == "reward_model" or any(
            p.kind in ("reward_model", "preferences") for p in fed
        ):
            return "judge"
        if step.kind == "model":
            return self._model_chapter(step, fed)
        if step.kind == "preferences":
            return "judge"
        if step.kind == "dialogues":
            return next((chapter for file, chapter in MARKS.items() if step.has(file)), "models")
        return "models"

    def _model_chapter(self, step: View, fed: Sequence[View]) -> str:
        inputs = step.record.get("inputs") or {}
        if step.slot == "pretrain" or not (inputs.get("model") or inputs.get("policy")):
            return "base"
        if step.slot == "rl":
            return "practice"
        if marked := [chapter for file, chapter in MARKS.items() if any(p.has(file) for p in fed)]:
            return marked[0]
        below = [s for s in self.steps if step.name in s.feeds and s.kind in MODELS]
        return (
            "judge"
            if below and all(s.kind == "model" and self.chapter(s) == "judge" for s in below)
            else "chat"
        )

    def mentioned(self, formula_steps: Sequence[str], formula: str) -> list[View]:
        """Steps a claim is about, in the recipe's order: those it names and those its scores are of."""
        words = {part.strip() for part in formula.split("/")} | set(formula_steps)
        return [step for step in self.steps if step.name in words]

    def models_in(self, chapter: str) -> list[View]:
        return [step for step in self.kind(*MODELS) if self.chapter(step) == chapter]


def _record(path: Path) -> dict[str, Any]:
    file = path / "record.json"
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(
            f"{file} cannot be read ({error}); `llmstages verify` names what is damaged"
        ) from error


def natural(text: str) -> tuple[Any, ...]:
    """Sort key: tiers by how often they are read, numbers by value ("2 digits" before "10 digits")."""
    tiers = ("frequent", "asked", "medium", "rare", "unseen", "fresh")
    if text in tiers:
        return (0, tiers.index(text), "")
    first = text.split(" ")[0]
    return (1, float(first), text) if first.replace(".", "", 1).isdigit() else (2, 0, text)
