"""Names to classes, by entry points alone: built-ins and third parties register in the same way.

A name maps to a lazy ``module:Class`` that is imported on use. So a list of a hundred stages
imports
none of them, and a stage whose module is broken harms only the runs that use it. Groups:

``llmstages.stages``            ``rl.grpo`` -> a stage
``llmstages.component_groups``  ``rewards`` -> the contract of the components of
``llmstages.rewards`` ``llmstages.artifact_kinds``    ``model`` -> an ArtifactKind (artifacts.py)
``llmstages.conf``              a package whose YAML files are more recipes and presets

A component is a smaller plugin that a stage is made of: a filter, a reward, a tool. Left out on
purpose: registration by import or decorator, which would import every plugin to learn what
exists.
"""

from __future__ import annotations

import dataclasses as dc
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from llmstages.core import file_components
from llmstages.core.config import build_config
from llmstages.core.contracts import violations
from llmstages.core.errors import StageError, near
from llmstages.core.stage import Stage

STAGES = "stages"
COMPONENT_GROUPS = "component_groups"


@dc.dataclass(frozen=True)
class Entry:
    """One registered name: what it points to, and which installed package registers it."""

    name: str
    target: str
    package: str
    point: EntryPoint = dc.field(repr=False, compare=False)


@cache
def entries(group: str) -> Mapping[str, Entry]:
    """All names of a group, sorted.

    Raises:
        StageError: two packages register one name. Either choice would surprise someone.
    """
    by_name: dict[str, Entry] = {}
    for point in entry_points(group=f"llmstages.{group}"):
        entry = Entry(point.name, point.value, _package(point), point)
        other = by_name.setdefault(point.name, entry)
        if (other.target, other.package) != (entry.target, entry.package):
            raise StageError(
                f"two packages register {point.name!r} in llmstages.{group}: "
                f"{other.package} ({other.target}) and {entry.package} ({entry.target}). "
                "Names must be unique: uninstall one, or ask its author to rename it"
            )
    return dict(sorted(by_name.items()))


def _package(point: EntryPoint) -> str:
    if point.dist is None:
        return "an unnamed package"
    return f"{point.dist.name} {point.dist.version}"


def slots() -> list[str]:
    """The slots that installed stages fill: the part of a stage's name before the dot."""
    return sorted({name.split(".")[0] for name in entries(STAGES)})


def component_groups() -> list[str]:
    """The groups of components that installed packages open, such as filters and rewards."""
    return list(entries(COMPONENT_GROUPS))


def find(group: str, name: str) -> Entry:
    """The entry of a name.

    Raises:
        StageError: nothing is registered under it; the message lists near names and packages.
    """
    known = entries(group)
    if name in known:
        return known[name]
    listed = list(known.values())
    if group == STAGES:
        slot = name.split(".")[0] + "."
        listed = [entry for entry in listed if entry.name.startswith(slot)] or listed
    lines = "".join(f"\n  {entry.name}  ({entry.package})" for entry in listed)
    raise StageError(
        f"nothing is registered as {name!r} in llmstages.{group}.{near(name, known)} "
        f"Registered:{lines or ' nothing'}"
    )


@cache
def load(group: str, name: str) -> Any:
    """Import what a name points to.

    Raises:
        StageError: the import fails; the message names the package to fix.
    """
    entry = find(group, name)
    try:
        return entry.point.load()
    except Exception as error:  # the import of a plugin may raise anything
        raise StageError(
            f"{name!r} ({entry.target}, from {entry.package}) cannot be imported: "
            f"{type(error).__name__}: {error}. Fix or uninstall that package, "
            "or choose another variant"
        ) from error


def load_checked(group: str, name: str) -> type:
    """The class of a stage or component, checked against the contract of its group.

    A component may be named by its file as well: ``./my_reward.py:score``.
    """
    if group != STAGES and file_components.is_file(name):
        # Never remembered by its name, since the file may have been edited.
        contract = load(COMPONENT_GROUPS, group)
        cls = file_components.load(name, contract)
        _check_contract(cls, contract, name)
        return cls
    return _load_registered(group, name)


@cache
def _load_registered(group: str, name: str) -> type:
    cls = load(group, name)
    contract = Stage if group == STAGES else load(COMPONENT_GROUPS, group)
    entry = find(group, name)
    where = f"{name!r} of llmstages.{group} ({entry.target}, from {entry.package})"
    _check_contract(cls, contract, where)
    return cls


def _check_contract(cls: type, contract: type, where: str) -> None:
    if problems := violations(cls, contract):
        raise StageError(
            f"{where} does not keep its contract: {'; '.join(problems)}. The contract is "
            f"{contract.__module__}.{contract.__name__}"
        )


def load_stage(name: str) -> type:
    """The class of a stage such as ``rl.grpo``."""
    return load_checked(STAGES, name)


def load_component(group: str, spec: Mapping[str, Any]) -> Any:
    """Make a component from ``{"use": name, **fields}``.

    Example:
        ``load_component("filters", {"use": "url"})``
    """
    cls, config = component_config(group, spec)
    return cls(config)


def component_config(group: str, spec: Mapping[str, Any], key: str = "") -> tuple[type, Any]:
    """The class and the typed Config of a component, with defaults filled in.

    Args:
        group: of the component.
        spec: ``{"use": name, **fields}``.
        key: where the spec stands in a run (``rl.rewards.mine``), for messages.
    """
    if isinstance(spec, Mapping) and "broken" in spec:
        raise StageError(str(spec["broken"]))
    if not isinstance(spec, Mapping) or not spec.get("use"):
        raise StageError(
            f"a member of {group!r} is {spec!r}, which does not say what to use. Write "
            f"{{'use': NAME, ...}} from Python, STEP.{group}.NAME=NAME on the command line"
        )
    cls = load_checked(group, spec["use"])
    fields = {key: value for key, value in spec.items() if key != "use"}
    return cls, build_config(cls.Config, fields, key or f"{group}.{spec['use']}")


def default_components(declared: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    """Member -> name of its default component, from what a stage declares in ``components``."""
    if isinstance(declared, Mapping):
        return dict(declared)
    return {name: name for name in declared}


def fill_components(stage: Any, values: Mapping[str, Any], step: str = "") -> dict[str, Any]:
    """The values of a stage's Config with its components: the defaults where none are given.

    Each component is checked; a member that is set to None is left out.
    """
    filled = dict(values)
    for group, declared in getattr(stage, "components", {}).items():
        given = values.get(group)
        if given is None:
            given = {member: {"use": name} for member, name in default_components(declared).items()}
        filled[group] = {member: spec for member, spec in given.items() if spec is not None}
        for member, spec in filled[group].items():
            component_config(group, spec, f"{step}.{group}.{member}" if step else "")
    return filled


def code_version(cls: type) -> str:
    """The ``version`` of a class and of every class it inherits from, such as ``1 < 3``.

    A subclass runs the code of its parents, so a new version of a parent is a new version of it.
    """
    own = [
        str(parent.__dict__["version"]) for parent in cls.__mro__ if "version" in parent.__dict__
    ]
    return " < ".join(own)


def describe(cls: type) -> str:
    """The first line of the docstring of a class, or of its module's."""
    doc = cls.__dict__.get("__doc__")
    if not doc:
        doc = getattr(sys.modules.get(cls.__module__), "__doc__", None)
    lines = (doc or "").strip().splitlines()
    return lines[0] if lines else ""
