"""Names to classes, by entry points alone: built-ins and third parties register in the same way.

A name maps to a lazy ``module:Class`` that is imported on use, so that listing a hundred stages imports none, and a
stage whose module is broken harms only the runs that ask for it. Left out on purpose: any registration by import or
decorator, since both mean importing every plugin to learn what exists.
"""

from __future__ import annotations

import dataclasses as dc
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from llmstages.core.config import build_config
from llmstages.core.errors import StageError, near

STAGES = "stages"
COMPONENTS = (
    "filters",
    "extractors",
    "rewards",
    "tools",
    "evaluators",
)  # smaller plugins: a class with Config, version, __init__(config)


@dc.dataclass(frozen=True)
class Entry:
    """One registered name: what it points to and which installed package says so."""

    name: str
    target: str
    package: str
    point: EntryPoint = dc.field(repr=False, compare=False)


@cache
def entries(group: str) -> Mapping[str, Entry]:
    """All names of a group. Two packages claiming one name are refused, since either choice would surprise someone."""
    found: dict[str, Entry] = {}
    for point in entry_points(group=f"llmstages.{group}"):
        entry = Entry(point.name, point.value, _package(point), point)
        other = found.setdefault(point.name, entry)
        if other.target != entry.target or other.package != entry.package:
            raise StageError(
                f"two packages register {point.name!r} in llmstages.{group}: {other.package} ({other.target}) and "
                f"{entry.package} ({entry.target}). Names must be unique: uninstall one, or ask its author to rename it"
            )
    return dict(sorted(found.items()))


def _package(point: EntryPoint) -> str:
    dist = getattr(point, "dist", None)
    return f"{dist.name} {dist.version}" if dist else "an unnamed package"


def slots() -> list[str]:
    """The slots any installed stage fills: the part of a stage's name before the dot."""
    return sorted({name.split(".")[0] for name in entries(STAGES)})


def find(group: str, name: str) -> Entry:
    """The entry of a name; a typo lists near names and what is registered by which package."""
    known = entries(group)
    if name in known:
        return known[name]
    slot = name.split(".")[0] + "."
    rows = [e for e in known.values() if group != STAGES or e.name.startswith(slot)] or list(
        known.values()
    )
    lines = "".join(f"\n  {e.name}  ({e.package})" for e in rows)
    raise StageError(
        f"nothing is registered as {name!r} in llmstages.{group}.{near(name, known)} Registered:{lines or ' nothing'}"
    )


@cache
def load(group: str, name: str) -> type:
    """Import the class of a name. A module that fails to import is a StageError naming the package to mend."""
    entry = find(group, name)
    try:
        return entry.point.load()
    except (
        Exception
    ) as error:  # a plugin's import may raise anything; every kind must end as one clear message
        raise StageError(
            f"{name!r} ({entry.target}, from {entry.package}) cannot be imported: "
            f"{type(error).__name__}: {error}. Mend or uninstall that package, or choose another variant"
        ) from error


def load_stage(name: str) -> type:
    """The class of a stage such as ``rl.grpo``, checked for the contract's attributes."""
    stage = load(STAGES, name)
    absent = [a for a in ("Config", "inputs", "output", "version", "run") if not hasattr(stage, a)]
    if absent or not dc.is_dataclass(getattr(stage, "Config", None)):
        raise StageError(
            f"stage {name!r} ({stage.__module__}) does not keep the contract: "
            f"{'it lacks ' + ', '.join(absent) if absent else 'Config is no dataclass'}; see llmstages/stage.py"
        )
    return stage


def load_component(group: str, spec: Mapping[str, Any]) -> Any:
    """Make a smaller plugin from ``{"use": name, **fields}``, e.g. ``load_component("filters", {"use": "url"})``."""
    cls, config = component_config(group, spec)
    return cls(config)


def component_config(group: str, spec: Mapping[str, Any]) -> tuple[type, Any]:
    """Class and typed Config of a part, with the defaults filled in."""
    if not isinstance(spec, Mapping) or not spec.get("use"):
        raise StageError(
            f"a member of {group!r} is {spec!r}, which does not say what to use. Write "
            f"{{'use': NAME, ...}} from Python, +{group}@STEP.{group}.NAME=NAME on the command line"
        )
    cls = load(group, spec["use"])
    fields = {key: value for key, value in spec.items() if key != "use"}
    return cls, build_config(cls.Config, fields, f"{group}.{spec['use']}")


def default_components(parts: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    """Member -> name of its default, from what a stage declares: names alone are members of that name."""
    return dict(parts) if isinstance(parts, Mapping) else {name: name for name in parts}


def describe(cls: type) -> str:
    """First line of a class's docstring, or of its module's."""
    doc = (
        cls.__dict__.get("__doc__")
        or getattr(sys.modules.get(cls.__module__), "__doc__", None)
        or ""
    )
    return doc.strip().splitlines()[0] if doc.strip() else ""
