"""What earlier runs made, found by the names people use: a step, a store key, a folder, a hub address.

The commands that look at results (chat, tokens) start here. Nothing is composed or planned: what counts is what lies in
``runs/`` and in the store, so a result can be used although its recipe has changed since.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.pipeline.plan import Source
from llmstages.pipeline.store import RECORD


@dataclass(frozen=True)
class Made:
    """A finished step, or a folder from elsewhere, whose record is empty."""

    name: str
    path: Path
    record: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.record.get("kind", ""))

    @property
    def stage(self) -> str:
        return str(self.record.get("stage", ""))


@dataclass(frozen=True)
class Last:
    """The steps of a run by name, and where it was found."""

    steps: Mapping[str, Made]
    where: str
    store: Path

    def of_kind(self, *kinds: str) -> list[Made]:
        """In the order they were finished."""
        return sorted(
            (m for m in self.steps.values() if m.kind in kinds),
            key=lambda m: m.record.get("finished", 0),
        )


def last_run(overrides: Sequence[str] = ()) -> Last:
    """The run touched last, or the one the overrides name (``name=`` or ``recipe=``); without runs, the newest of each step in the store."""
    from llmstages.pipeline.compose_cache import compose

    composed = compose(overrides)
    store, runs = Path(composed.store), Path(composed.runs or "runs")
    named = any(o.startswith(("name=", "recipe=")) for o in overrides)
    folders = (
        [runs / composed.name]
        if named
        else [p for p in runs.glob("*") if p.is_dir() and not p.name.startswith(".")]
    )
    found = [
        (folder, steps)
        for folder in folders
        if (steps := {m.name: m for m in map(_made, sorted(folder.glob("*"))) if m.record})
    ]
    if found:
        folder, steps = max(
            found,
            key=lambda pair: max(
                pair[0].stat().st_mtime, *(m.record.get("finished", 0) for m in pair[1].values())
            ),
        )
        return Last(steps, str(folder), store)
    if named:
        return Last({}, str(folders[0]), store)
    newest: dict[str, Made] = {}
    for folder in store.glob(f"*/{RECORD}"):
        made = _made(folder.parent)
        name = str(made.record.get("step") or folder.parent.name)
        if name not in newest or newest[name].record.get("finished", 0) < made.record.get(
            "finished", 0
        ):
            newest[name] = Made(name, made.path, made.record)
    return Last(newest, str(store), store)


def _made(path: Path) -> Made:
    file = path / RECORD
    if not file.exists():
        return Made(path.name, path, {})
    try:
        return Made(path.name, path.resolve(), json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise StageError(
            f"{file} cannot be read ({error}); `llmstages verify` names what is damaged"
        ) from error


def find(given: str, last: Last, kind: str) -> Made:
    """A step of the run, a key of the store, a folder, or ``[hub:]ORG/NAME[@REVISION]``. Raises StageError with what there is."""
    if given in last.steps:
        return last.steps[given]
    for path in (Path(given).expanduser(), last.store / given):
        if path.is_dir():
            return Made(given, path.resolve(), _made(path).record)
    if given.startswith("hub:") or (
        given.count("/") == 1 and not given.startswith((".", "~", "/"))
    ):
        from llmstages.pipeline.sources import fetch

        address = given if given.startswith("hub:") else f"hub:{given}"
        return Made(
            given, fetch(Source(address if "@" in address else f"{address}@main", kind)).path, {}
        )
    fits = [
        made.name
        for made in last.steps.values()
        if kind in (made.kind, "") or (kind == "tokenizer" and made.kind == "model")
    ]
    raise StageError(
        f"there is no {kind} {given!r}.{near(given, fits)} {last.where} has {', '.join(fits) or 'none'}; "
        "also taken: a folder, a key of the store, or hub:ORG/NAME@REVISION"
    )


def lineage(made: Made) -> Iterator[Made]:
    """The step and everything it was made from, nearest first; what is no longer in its store is left out."""
    queue, seen = [made], set()
    while queue:
        one = queue.pop(0)
        if one.path in seen:
            continue
        seen.add(one.path)
        yield one
        for name, fingerprint in _fed(one.record):
            folder = one.path.parent / f"{name}-{fingerprint}"
            if (folder / RECORD).exists():
                queue.append(Made(name, folder, _made(folder).record))


def _fed(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(step, fingerprint) of each input: names stand in the record, fingerprints in its identity."""
    prints = (record.get("identity") or {}).get("inputs") or {}
    for name, steps in (record.get("inputs") or {}).items():
        value = prints.get(name)
        if isinstance(value, list):
            yield from ((str(step), str(fingerprint)) for step, fingerprint in value)
        elif value is not None and steps:
            yield steps[0], str(value)
