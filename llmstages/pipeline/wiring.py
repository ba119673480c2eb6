"""From composed values to Steps: which stage a step uses, and which earlier result feeds each of its inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core import artifacts, registry
from llmstages.core.config import build_config
from llmstages.core.errors import StageError, near
from llmstages.pipeline.plan import Source, Step


def make_steps(
    slots: Mapping[str, Mapping[str, Any]],
    wiring: Mapping[str, Mapping[str, Any]],
    only: str | None = None,
) -> list[Step]:
    """Steps in the recipe's order. ``only`` restricts to one step and what it hangs on."""
    if only is not None and only not in wiring:
        raise StageError(
            f"only={only}: the run has no such step.{near(only, wiring)} Steps: {', '.join(wiring)}"
        )
    steps: list[Step] = []
    closed = {
        name: f"step {name!r} comes later in the recipe; a step can only take what is made before it"
        for name in wiring
    }
    failed: dict[str, str] = {}
    for name, wires in wiring.items():
        closed.pop(name)
        try:
            steps.append(_step(name, dict(wires or {}), slots, steps, closed, failed))
        except StageError as error:
            if only is None or name == only:
                raise
            failed[name] = closed[name] = str(
                error
            )  # harmless unless `only` turns out to hang on it
        if name == only:
            break
    return _needed(steps, only) if only else steps


def make_step(
    name: str,
    uses: str,
    values: Mapping[str, Any],
    wires: Mapping[str, Any],
    earlier: Sequence[Step],
    closed: Mapping[str, str] = {},
    failed: Mapping[str, str] = {},
    strict: bool = False,
) -> Step:
    """One step: typed config, and inputs resolved among the earlier steps.

    closed: name -> why it cannot be a source; failed: those of them that might have been the nearest fit.
    strict: refuse an input the stage does not take (a recipe drops it with a note, since it serves several variants).
    """
    stage = registry.load_stage(uses)
    parts = getattr(stage, "components", {})
    values = {key: value for key, value in values.items() if key != "stage"}
    for group, members in parts.items():
        chosen = values.get(
            group,
            {member: {"use": use} for member, use in registry.default_components(members).items()},
        )
        values[group] = {key: spec for key, spec in chosen.items() if spec is not None}
        for spec in values[group].values():
            registry.component_config(group, spec)
    config = build_config(stage.Config, values, name)
    if strict and (extra := [wired for wired in wires if wired not in stage.inputs]):
        raise StageError(
            f"step {name!r} ({uses}) has no input {extra[0]!r}.{near(extra[0], stage.inputs)} It takes: "
            f"{', '.join(stage.inputs) or 'nothing'}"
        )
    inputs, notes = _wire(name, uses, stage, wires, earlier, closed, failed)
    return Step(name, uses, stage, config, inputs, tuple(notes))


def _step(
    name: str,
    wires: dict[str, Any],
    slots: Mapping[str, Mapping[str, Any]],
    earlier: Sequence[Step],
    closed: Mapping[str, str],
    failed: Mapping[str, str],
) -> Step:
    values = slots.get(name)
    if values is None:
        raise StageError(
            f"the recipe wires a step {name!r} but chooses no variant for it.{near(name, slots)} "
            f"Add `- /SLOT@{name}: VARIANT` to the recipe's defaults, or +SLOT@{name}=VARIANT on the command line"
        )
    if "stage" not in values:
        raise StageError(
            f"step {name!r} is set to {values.get('use', values)!r}, which is no stage (llmstages list {name})"
        )
    if "broken" in values:
        raise StageError(f"step {name!r}: {values['broken']}")
    return make_step(name, values["stage"], values, wires, earlier, closed, failed)


def _wire(
    name: str,
    uses: str,
    stage: type,
    wires: Mapping[str, Any],
    earlier: Sequence[Step],
    closed: Mapping[str, str],
    failed: Mapping[str, str],
) -> tuple[dict[str, Any], list[str]]:
    inputs: dict[str, Any] = {}
    notes: list[str] = []
    for wired in wires:
        if wired not in stage.inputs:
            if guess := near(wired, stage.inputs, cutoff=0.8):
                raise StageError(
                    f"step {name!r} ({uses}) has no input {wired!r}.{guess} It takes: {', '.join(stage.inputs) or 'nothing'}"
                )
            notes.append(f"input {wired} is not taken by {uses}: left out")
    for declared, spec in stage.inputs.items():
        given, many, optional = wires.get(declared), "*" in spec, "?" in spec
        where = f"steps.{name}.{declared}"
        if failed and (given == "*" or (given is None and not optional)):
            raise StageError(next(iter(failed.values())))  # one of these might have been taken
        if given is None and declared in wires and many:
            inputs[declared] = ()
        elif given is None and optional and not many:
            inputs[declared] = None
        elif given is None:
            inputs[declared], note = _nearest(name, uses, declared, spec, earlier)
            notes += [note] if note else []
        elif given == "*":
            inputs[declared] = tuple(step for step in earlier if artifacts.accepts(spec, step.kind))
        else:
            found = tuple(
                _source(where, one, spec, earlier, closed)
                for one in (given if isinstance(given, (list, tuple)) else [given])
            )
            if not many and len(found) != 1:
                raise StageError(
                    f"{where} takes one {spec.rstrip('?')}, but is wired to {len(found)} sources"
                )
            inputs[declared] = found if many else found[0]
    return inputs, notes


def _nearest(
    name: str, uses: str, declared: str, spec: str, earlier: Sequence[Step]
) -> tuple[Any, str]:
    """What an input left unwired takes: the nearest earlier step that fits; a bare "*" takes everything before it."""
    fits = [step for step in earlier if artifacts.accepts(spec, step.kind)]
    if spec.rstrip("?") == "*":
        return tuple(fits), ""
    if "?" in spec:
        return (), ""
    if fits:
        note = f"input {declared} is not wired: takes {fits[-1].name}, the nearest {fits[-1].kind}"
        return ((fits[-1],) if "*" in spec else fits[-1]), note
    if "*" in spec:
        return (), ""
    before = ", ".join(f"{step.name} ({step.kind})" for step in earlier) or "none"
    raise StageError(
        f"step {name!r} ({uses}) needs a {spec.rstrip('?')} as its input {declared!r}, and no step before it makes "
        f"one. Steps before it: {before}. Wire it: steps.{name}.{declared}=STEP, hub:ORG/NAME@REVISION or ./PATH"
    )


def _source(
    where: str, given: Any, spec: str, earlier: Sequence[Step], closed: Mapping[str, str]
) -> Step | Source:
    """An earlier step, a hub address, or a path."""
    if isinstance(given, (Step, Source)):
        return given
    text = os.fspath(given) if hasattr(given, "__fspath__") else str(given)
    named = {step.name: step for step in earlier}
    if text in named:
        return named[text]
    if text in closed:
        raise StageError(f"{where}={text}: {closed[text]}")
    kind = spec.rstrip("?*").split("|")[0]
    if text.startswith("hub:"):
        if "@" not in text or text.endswith("@"):
            raise StageError(
                f"{where}={text}: say which revision, since a name alone may change its content: {text.rstrip('@')}@main, "
                "or better a commit hash"
            )
        return Source(text, kind)
    if "/" in text or text.startswith((".", "~")):
        return _folder(where, Path(text).expanduser(), spec)
    raise StageError(
        f"{where}={text}: no step before it is called {text!r}.{near(text, named)} A source is an earlier step "
        f"({', '.join(named) or 'none'}), hub:ORG/NAME@REVISION, or a path such as ./{text}"
    )


def _folder(where: str, path: Path, spec: str) -> Source:
    if not path.is_dir():
        raise StageError(f"{where}={path}: no such folder (looked in {Path.cwd()})")
    wanted = [kind for kind in spec.rstrip("?*").split("|") if kind]
    for kind in wanted:
        if not artifacts.missing(kind, path):
            return Source(str(path), kind)
    lacks = "; ".join(f"{kind}: {', '.join(artifacts.missing(kind, path))}" for kind in wanted)
    raise StageError(
        f"{where}={path}: the folder is not a {' or '.join(wanted) or 'known kind'}. It lacks {lacks or 'a kind'}"
    )


def _needed(steps: Sequence[Step], only: str) -> list[Step]:
    wanted = {only}
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= {fed.name for _, fed in step.feeds()}
    return [step for step in steps if step.name in wanted]
