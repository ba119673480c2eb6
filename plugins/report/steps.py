"""The run as the report sees it: finished steps with their records, and what each was made from.

No step is recognized by its name. What a step is follows from its kind, its stage, its inputs and
the files that it holds, so that every recipe gets a report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.data import tables

NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)")
MODEL_KINDS = ("model", "reward_model")


@dataclass(frozen=True)
class FinishedStep:
    """One artifact of the run. A folder without a record (an artifact made by hand) has {}."""

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
    def inputs(self) -> dict[str, list[str]]:
        """Input name -> names of the steps or sources wired to it."""
        return self.record.get("inputs") or {}

    @property
    def stage(self) -> str:
        """Such as ``rl.grpo``; "" without a record."""
        return str(self.record.get("stage") or "")

    @property
    def slot(self) -> str:
        return self.stage.split(".")[0]

    @property
    def sources(self) -> list[str]:
        """Names of all that the step took, each once, in order."""
        # A step may take the same source in several inputs.
        return list(dict.fromkeys(chain.from_iterable(self.inputs.values())))

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """What the trainer logged."""
        return self.lines("log.jsonl")

    def has(self, file: str) -> bool:
        return (self.path / file).exists()

    def json(self, file: str, default: Any = None) -> Any:
        """A JSON file of the artifact, or ``default`` if there is none."""
        path = self.path / file
        if not path.exists():
            return default
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StageError(
                f"{path} is not valid JSON ({error}). "
                f"Run the step again: llmstages redo {self.name}"
            ) from error

    def lines(self, file: str) -> list[dict[str, Any]]:
        """The rows of a JSON-lines file; [] if there is none."""
        return tables.read_lines(self.path / file)

    def table(self, name: str = "data") -> Any:
        """An Arrow table of the artifact; [] if there is none."""
        return tables.load(self.path / name) if self.has(name) else []


class Chain:
    """All steps before the report, in the order of the recipe.

    Args:
        artifacts: the inputs of the report.
        group_order: groups of questions that are shown in this order; others are sorted after them.
    """

    def __init__(self, artifacts: Iterable[Artifact], group_order: Sequence[str] = ()) -> None:
        self.steps = [FinishedStep(a.name, a.kind, a.path, _record(a.path)) for a in artifacts]
        self.by_name = {step.name: step for step in self.steps}
        self._group_order = list(group_order)

    def of_kind(self, *kinds: str) -> list[FinishedStep]:
        return [step for step in self.steps if step.kind in kinds]

    def parents(self, step: FinishedStep) -> list[FinishedStep]:
        """Steps of this run that a step took. Sources from outside the run are left out."""
        return [self.by_name[name] for name in step.sources if name in self.by_name]

    def group_key(self, group: str) -> tuple[Any, ...]:
        """Sort key of a group of questions.

        The configured groups come first, in their order. The others are sorted by name, numbers in
        it by their value: "2 digits" before "10 digits", "level 9" before "level 10".
        """
        if group in self._group_order:
            return (0, self._group_order.index(group), ())
        return (1, 0, natural_key(group))

    def sorted_groups(self, groups: Iterable[str]) -> list[str]:
        return sorted(groups, key=self.group_key)


def natural_key(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key of a name in which numbers count by their value."""
    parts = NUMBER.split(text.casefold())
    # Words and numbers alternate: every second part is a number.
    return tuple(
        (0, float(part), "") if place % 2 else (1, 0.0, part)
        for place, part in enumerate(parts)
        if part
    )


def _record(path: Path) -> dict[str, Any]:
    file = path / "record.json"
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(
            f"{file} cannot be read ({error}). `llmstages verify` lists what is damaged"
        ) from error
