"""Configurations compared with steps, so that nothing on the command line is without effect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmstages.core import registry
from llmstages.core.errors import StageError, near


def check(
    steps: Mapping[str, Any],
    slots: Mapping[str, Mapping[str, Any]],
    given: Collection[str],
    removed: Collection[str],
) -> dict[str, Any]:
    """The steps in the order in which they run.

    Steps that the command line adds come before the report, so that the report shows them.

    Args:
        steps: step -> input -> source, as composed.
        slots: step -> ``{"stage": name, **values}``.
        given: dotted keys that the command line sets.
        removed: names of steps that the command line mentions, removed ones among them.

    Raises:
        StageError: a configuration that no step uses, or an input that a step does not have.
    """
    for name, values in slots.items():
        if name not in steps and name not in removed:
            raise StageError(_unused(name, values, slots))
    for key in given:
        _check_wiring(key, steps, slots)
    return {name: steps[name] for name in _ordered(list(steps), slots, given)}


def _ordered(
    names: list[str], slots: Mapping[str, Mapping[str, Any]], given: Collection[str]
) -> list[str]:
    """The names, with those that the command line added moved before the reports at the end."""
    added: list[str] = []
    while names and f"steps.{names[-1]}" in given:
        added.insert(0, names.pop())
    reports: list[str] = []
    while names and _makes_report(slots.get(names[-1], {})):
        reports.insert(0, names.pop())
    return [*names, *added, *reports]


def _unused(name: str, values: Mapping[str, Any], slots: Mapping[str, Any]) -> str:
    if "stage" not in values:
        key = next(iter(values), "")
        guess = near(name, set(slots) - {name})
        return f"{name}.{key} means nothing in this run: it has no step {name!r}.{guess}"
    slot, _, variant = str(values["stage"]).partition(".")
    group = slot if slot == name else f"{slot}@{name}"
    return (
        f"+{group}={variant} adds a configuration but no step, so nothing would run it. "
        f"Add the step too: +{group}={variant} '+steps.{name}={{}}'"
    )


def _check_wiring(key: str, steps: Mapping[str, Any], slots: Mapping[str, Any]) -> None:
    """Refuse an input on the command line that the stage of the step does not take."""
    head, _, rest = key.partition(".")
    step, _, name = rest.partition(".")
    if head != "steps" or not name or step not in steps or "stage" not in slots.get(step, {}):
        return
    if "broken" in slots[step]:
        return
    uses = slots[step]["stage"]
    inputs = registry.load_stage(uses).inputs  # type: ignore[attr-defined]
    if name not in inputs:
        raise StageError(
            f"step {step!r} ({uses}) has no input {name!r}.{near(name, inputs)} "
            f"It takes: {', '.join(inputs) or 'nothing'}"
        )


def _makes_report(values: Mapping[str, Any]) -> bool:
    if "stage" not in values or "broken" in values:
        return False
    return registry.load_stage(values["stage"]).output == "report"  # type: ignore[attr-defined]
