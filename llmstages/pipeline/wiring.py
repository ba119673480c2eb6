"""From composed values to Steps: the stage of each step, and the earlier result of each input."""

from __future__ import annotations

import dataclasses as dc
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core import artifacts, registry
from llmstages.core.artifacts import InputSpec, parse_input
from llmstages.core.config import build_config
from llmstages.core.errors import MissingValueError, StageError, near
from llmstages.pipeline.plan import Source, Step


@dc.dataclass(frozen=True)
class Unbuilt:
    """A step of the recipe that cannot be built.

    Attributes:
        position: how many steps could be built before it.
        kind: of the artifact it would make; "" if its stage cannot be loaded.
    """

    name: str
    position: int
    kind: str
    error: StageError

    @property
    def why_left_out(self) -> str:
        """The reason why a run can do without the step; "" where it is wrong, not incomplete."""
        if not isinstance(self.error, MissingValueError):
            return ""
        return f"{self.name} is left out, since {' and '.join(self.error.keys)} is not set"

    def may_fit(self, spec: InputSpec) -> bool:
        """Whether the step might have fed an input."""
        return not spec.kinds or not self.kind or self.kind in spec.kinds


@dc.dataclass
class Scope:
    """What a step may take its inputs from.

    Attributes:
        earlier: the steps before it.
        later: names of the steps that come after it.
        unbuilt: the steps before it that cannot be built, by name. Only where the run is
            restricted to one step, which need not depend on them.
        given: dotted keys that the command line sets.
        notes: step -> what its plan says about its composition.
    """

    earlier: list[Step] = dc.field(default_factory=list)
    later: set[str] = dc.field(default_factory=set)
    unbuilt: dict[str, Unbuilt] = dc.field(default_factory=dict)
    given: Collection[str] = ()
    notes: Mapping[str, str] = dc.field(default_factory=dict)


def make_steps(
    slots: Mapping[str, Mapping[str, Any]],
    wiring: Mapping[str, Mapping[str, Any]],
    only: str | None = None,
    given: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
) -> list[Step]:
    """The steps in the order of the recipe.

    With ``only``, a step that cannot be built does no harm unless ``only`` depends on it. An
    optional input that the recipe wires to a step with a required value missing stays open, and a
    note says so; what the command line wires is never left out.

    Args:
        slots: step -> ``{"stage": name, **values}``.
        wiring: step -> input -> source.
        only: restricts the run to one step and those that it depends on.
        given: dotted keys that the command line sets.
        notes: step -> what its plan says about its composition.
    """
    if only is not None and only not in wiring:
        raise StageError(
            f"only={only}: the run has no such step.{near(only, wiring)} Steps: {', '.join(wiring)}"
        )
    scope = Scope(later=set(wiring), given=given, notes=notes or {})
    for name, wires in wiring.items():
        scope.later.discard(name)
        try:
            scope.earlier.append(_make_composed_step(name, dict(wires or {}), slots, scope))
        except StageError as error:
            if only is None or name == only:
                raise
            kind = _kind_made(slots.get(name, {}))
            scope.unbuilt[name] = Unbuilt(name, len(scope.earlier), kind, error)
        if name == only:
            break
    return _needed(scope.earlier, only) if only else scope.earlier


def _kind_made(values: Mapping[str, Any]) -> str:
    """The kind of artifact that a step makes; "" if its stage cannot be loaded."""
    try:
        stage: Any = registry.load_stage(str(values.get("stage", "")))
    except StageError:
        return ""
    return stage.output


def make_step(
    name: str,
    uses: str,
    values: Mapping[str, Any],
    wires: Mapping[str, Any],
    scope: Scope | None = None,
    strict: bool = False,
) -> Step:
    """One step: its typed config, and its inputs found among the earlier steps.

    Args:
        name: of the step.
        uses: the registered stage, such as ``rl.grpo``.
        values: of its Config.
        wires: input -> source.
        strict: refuse an input that the stage does not take. A recipe drops it with a note, since
            it serves several variants.
    """
    stage: Any = registry.load_stage(uses)
    options = {key: value for key, value in values.items() if key != "stage"}
    config = build_config(stage.Config, registry.fill_components(stage, options, name), name)
    if hasattr(stage, "validate"):
        stage().validate(config, name)
    unknown = [wired for wired in wires if wired not in stage.inputs]
    scope = scope or Scope()
    notes = [scope.notes[name]] if name in scope.notes else []
    for wired in unknown:
        guess = near(wired, stage.inputs, cutoff=0.6 if strict else 0.8)
        if strict or guess:
            raise StageError(
                f"step {name!r} ({uses}) has no input {wired!r}.{guess} "
                f"It takes: {', '.join(stage.inputs) or 'nothing'}"
            )
        notes.append(f"input {wired} is not taken by {uses}: left out")
    inputs: dict[str, Any] = {}
    for input_name, declared in stage.inputs.items():
        inputs[input_name], note = _wire(name, uses, input_name, declared, wires, scope)
        if note:
            notes.append(note)
    return Step(name, uses, stage, config, inputs, tuple(notes))


def _make_composed_step(
    name: str, wires: dict[str, Any], slots: Mapping[str, Mapping[str, Any]], scope: Scope
) -> Step:
    values = slots.get(name)
    if values is None:
        raise StageError(
            f"the recipe wires a step {name!r} but chooses no variant for it.{near(name, slots)} "
            f"Add `- /SLOT@{name}: VARIANT` to the recipe's defaults, "
            f"or +SLOT@{name}=VARIANT on the command line"
        )
    if "stage" not in values:
        raise StageError(
            f"step {name!r} is set to {values.get('use', values)!r}, which is not a stage "
            f"(llmstages list {name})"
        )
    if "broken" in values:
        raise StageError(f"step {name!r}: {values['broken']}")
    return make_step(name, values["stage"], values, wires, scope)


def _wire(
    step: str,
    uses: str,
    name: str,
    declared: str,
    wires: Mapping[str, Any],
    scope: Scope,
) -> tuple[Any, str]:
    """What feeds one input of a step, and a note where that was decided here."""
    spec, given = parse_input(declared), wires.get(name)
    if given == "*":
        _refuse_unbuilt([other for other in scope.unbuilt.values() if other.may_fit(spec)])
        return _all_that_fit(spec, scope.earlier), ""
    if given is None:
        closed_by_hand = name in wires
        if spec.many and closed_by_hand:
            return (), ""
        if spec.optional and not spec.many:
            return None, ""
        return _nearest(step, uses, name, spec, scope)
    where = f"steps.{step}.{name}"
    named = given if isinstance(given, (list, tuple)) else [given]
    notes: list[str] = []
    if spec.optional and where not in scope.given:
        named, notes = _without_incomplete(name, named, scope)
    sources = tuple(_source(where, item, spec, scope) for item in named)
    note = "; ".join(notes)
    if spec.many:
        return sources, note
    if spec.optional and notes and not sources:
        return None, note
    if len(sources) != 1:
        kinds = "|".join(spec.kinds)
        raise StageError(f"{where} takes one {kinds}, but is wired to {len(sources)} sources")
    return sources[0], note


def _without_incomplete(
    name: str, named: Sequence[Any], scope: Scope
) -> tuple[list[Any], list[str]]:
    """The sources of an optional input without steps that lack a value, and a note for each."""
    kept: list[Any] = []
    notes: list[str] = []
    for source in named:
        unbuilt = scope.unbuilt.get(str(source))
        if unbuilt and unbuilt.why_left_out:
            notes.append(f"input {name}: {unbuilt.why_left_out}")
        else:
            kept.append(source)
    return kept, notes


def _refuse_unbuilt(unbuilt: Sequence[Unbuilt]) -> None:
    """Raise the error of the first of these steps, each of which might have been taken."""
    if unbuilt:
        raise unbuilt[0].error


def _all_that_fit(spec: InputSpec, earlier: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(step for step in earlier if not spec.kinds or step.kind in spec.kinds)


def _nearest(step: str, uses: str, name: str, spec: InputSpec, scope: Scope) -> tuple[Any, str]:
    """What an unwired input takes: the nearest step that fits; a bare "*" takes all before it."""
    fits = _all_that_fit(spec, scope.earlier)
    unbuilt = [other for other in scope.unbuilt.values() if other.may_fit(spec)]
    if not spec.kinds:
        _refuse_unbuilt(unbuilt)
        return fits, ""
    if spec.optional:
        return (), ""
    # A step before the nearest one that fits would not have been taken in any case.
    nearest_position = scope.earlier.index(fits[-1]) if fits else -1
    nearer = [other for other in unbuilt if other.position > nearest_position]
    is_needed = not fits and not spec.many
    _refuse_unbuilt([other for other in nearer if is_needed or not other.why_left_out])
    notes = [f"input {name} is not wired: {other.why_left_out}" for other in nearer]
    if fits:
        nearest = fits[-1]
        notes.append(f"input {name} is not wired: takes {nearest.name}, the nearest {nearest.kind}")
        return ((nearest,) if spec.many else nearest), "; ".join(notes)
    if spec.many:
        return (), "; ".join(notes)
    before = ", ".join(f"{other.name} ({other.kind})" for other in scope.earlier) or "none"
    raise StageError(
        f"step {step!r} ({uses}) needs a {'|'.join(spec.kinds)} as its input {name!r}, and no step "
        f"before it makes one. Steps before it: {before}. "
        f"Wire it: steps.{step}.{name}=STEP, hub:ORG/NAME@REVISION or ./PATH"
    )


def _source(where: str, given: Any, spec: InputSpec, scope: Scope) -> Step | Source:
    """An earlier step, a hub address, or a path."""
    if isinstance(given, (Step, Source)):
        return given
    text = os.fspath(given) if hasattr(given, "__fspath__") else str(given)
    by_name = {step.name: step for step in scope.earlier}
    if text in by_name:
        return by_name[text]
    if text in scope.unbuilt:
        error = scope.unbuilt[text].error
        message = f"{where}={text}: {error}"
        if isinstance(error, MissingValueError):
            raise MissingValueError(message, error.keys)
        raise StageError(message)
    if text in scope.later:
        raise StageError(
            f"{where}={text}: step {text!r} comes later in the recipe; "
            "a step can only take what is made before it"
        )
    if text.startswith("hub:"):
        if "@" not in text or text.endswith("@"):
            raise StageError(
                f"{where}={text}: say which revision, since a name alone may change its content: "
                f"{text.rstrip('@')}@main, or better a commit hash"
            )
        return Source(text, spec.kinds[0] if spec.kinds else "")
    if "/" in text or text.startswith((".", "~")):
        return _folder(where, Path(text).expanduser(), spec)
    raise StageError(
        f"{where}={text}: no step before it is called {text!r}.{near(text, by_name)} "
        f"A source is an earlier step ({', '.join(by_name) or 'none'}), hub:ORG/NAME@REVISION, "
        f"or a path such as ./{text}"
    )


def _folder(where: str, path: Path, spec: InputSpec) -> Source:
    """A folder as a source, checked by what its kind requires."""
    if not path.is_dir():
        raise StageError(f"{where}={path}: no such folder (looked in {Path.cwd()})")
    if not spec.kinds:
        raise StageError(f"{where}={path}: this input takes steps of the run, not folders")
    lacking = []
    for kind in spec.kinds:
        artifacts.kind_of(kind)  # a kind that nobody registers cannot be checked: refused
        absent = artifacts.missing(kind, path)
        if not absent:
            return Source(str(path), kind)
        lacking.append(f"{kind}: {', '.join(absent)}")
    raise StageError(
        f"{where}={path}: the folder is not a {' or '.join(spec.kinds)}. "
        f"It lacks {'; '.join(lacking)}"
    )


def _needed(steps: Sequence[Step], only: str) -> list[Step]:
    """The step called ``only`` and those that it depends on."""
    names = {only}
    for step in reversed(steps):
        if step.name in names:
            names |= {source.name for _, source in step.sources()}
    return [step for step in steps if step.name in names]
