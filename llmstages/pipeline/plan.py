"""Steps, what identifies their results, and the plan: what runs, what is reused, and why.

A fingerprint is the stage's registered name and version, the identity fields of its Config, and the fingerprints of
its inputs. No path, machine or launcher enters it, so equal work is found again wherever it was done.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmstages.core import artifacts, registry
from llmstages.core.config import to_plain
from llmstages.core.console import format_number
from llmstages.core.digest import Digests, canonical, sha256
from llmstages.core.errors import StageError
from llmstages.pipeline.store import Store


@dc.dataclass(frozen=True, eq=False)
class Source:
    """An input from outside the run: ``hub:org/name@revision`` or a path."""

    name: str
    kind: str


@dc.dataclass(frozen=True, eq=False)
class Step:
    """One use of a stage: its name in the run, the registered stage, a typed config, and what feeds it."""

    name: str
    uses: str
    stage: type
    config: Any
    inputs: Mapping[str, Step | Source | tuple[Step | Source, ...] | None]
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.stage.output

    def feeds(self) -> Iterator[tuple[str, Step | Source]]:
        """(input name, what feeds it), "many" inputs one by one."""
        for name, value in self.inputs.items():
            for one in value if isinstance(value, tuple) else (value,):
                if one is not None:
                    yield name, one


@dc.dataclass(frozen=True)
class Planned:
    """A step with its fate. state: reused | new | resumed (new, with work left by an interrupted run)."""

    step: Step
    identity: Mapping[str, Any]
    fingerprint: str
    state: str
    why: str

    @property
    def key(self) -> str:
        return f"{self.step.name}-{self.fingerprint}"


def check_kinds(steps: Sequence[Step]) -> None:
    """Check every input of every step before any work: a wrong one names what gives what, and what would fit."""
    for position, step in enumerate(steps):
        for name, fed in step.feeds():
            declared = step.stage.inputs[name]
            if not artifacts.accepts(declared, fed.kind):
                fits = [s.name for s in steps[:position] if artifacts.accepts(declared, s.kind)]
                raise StageError(
                    f"step {step.name!r} ({step.uses}) takes {declared.rstrip('?*')} as {name!r}, but {fed.name!r} gives {fed.kind}. "
                    + (
                        f"Steps before it that fit: {', '.join(fits)}. Write steps.{step.name}.{name}={fits[-1]}"
                        if fits
                        else "No step before it fits; add one that makes it"
                    )
                )


def make_plan(steps: Sequence[Step], store: Store) -> list[Planned]:
    """Fingerprint every step and say whether its result is in the store, and if not, why it is new."""
    check_kinds(steps)
    digests, done = Digests(store.path / ".digests.json"), {}
    for step in steps:
        identity = _identity(step, done, digests)
        fingerprint = sha256(canonical(identity))[:10]
        key = f"{step.name}-{fingerprint}"
        damage = store.damage(key)
        if damage is None:
            state, why = "reused", ""
        else:
            state = "resumed" if store.has_work(key) else "new"
            why = damage or reason(step, identity, store, done)
        done[step] = Planned(step, identity, fingerprint, state, why)
    digests.save()
    return list(done.values())


def _identity(step: Step, done: Mapping[Step, Planned], digests: Digests) -> dict[str, Any]:
    parts = getattr(step.stage, "components", {})
    return {
        "stage": step.uses,
        "version": str(step.stage.version),
        "config": _fields(step.config, step.name, digests, parts),
        "inputs": {name: _input(step, value, done, digests) for name, value in step.inputs.items()},
    }


def _fields(
    config: Any, where: str, digests: Digests, parts: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """The identity fields of a Config; files by content, parts by name, version and their own identity fields."""
    found = {}
    for field in dc.fields(config):
        value, label = getattr(config, field.name), f"{where}.{field.name}"
        if field.name in parts:
            found[field.name] = {
                m: _part(field.name, spec, f"{label}.{m}", digests) for m, spec in value.items()
            }
            if len(value) > 1:
                found[f"order of {field.name}"] = list(
                    value
                )  # keys alone are compared in sorted order
        elif not field.metadata.get("identity", True):
            continue
        elif field.metadata.get("file"):
            found[field.name] = digests.field(label, value)
        else:
            found[field.name] = to_plain(value)
            canonical(found[field.name])
    return found


def _part(group: str, spec: Mapping[str, Any], where: str, digests: Digests) -> dict[str, Any]:
    cls, config = registry.component_config(group, spec)
    return {
        "use": spec["use"],
        "version": str(getattr(cls, "version", "")),
        **_fields(config, where, digests),
    }


def _input(step: Step, value: Any, done: Mapping[Step, Planned], digests: Digests) -> Any:
    """A fingerprint, or for a "many" input [name, fingerprint] pairs, since results are labelled by those names."""
    if isinstance(value, tuple):
        return [[one.name, _input(step, one, done, digests)] for one in value]
    if isinstance(value, Source):
        return (
            value.name
            if value.name.startswith("hub:")
            else digests.field(f"steps.{step.name}", value.name)[0][:10]
        )
    if value is not None and value not in done:
        raise StageError(
            f"step {step.name!r} is fed by {value.name!r}, which is not before it in the list of steps"
        )
    return done[value].fingerprint if value is not None else None


def reason(
    step: Step, identity: Mapping[str, Any], store: Store, done: Mapping[Step, Planned]
) -> str:
    """Why a step is new: what differs from the nearest result the store has for a step of this name."""
    best: tuple[tuple[int, float], str, list[str]] | None = None
    for record in store.records(step.name):
        changed = _differences(record["identity"], identity)
        unlike = 1000 * (record["identity"]["stage"] != identity["stage"])
        score = (len(changed) + unlike, -record.get("finished", 0))
        if best is None or score < best[0]:
            best = score, record["key"], changed
    if best is None:
        return "never run"
    old = store.record(best[1])["identity"]
    if old["stage"] != identity["stage"]:
        texts = [f"{old['stage']} -> {identity['stage']}"]
        texts += [
            told
            for key in best[2]
            if key.startswith("inputs.")
            and (told := _told(key, old, identity, step, done)).endswith(" new)")
        ]  # other inputs come with the other stage
    else:
        texts = [_told(key, old, identity, step, done) for key in best[2]]
    more = f", and {len(texts) - 4} more" if len(texts) > 4 else ""
    return f"{', '.join(texts[:4])}{more} (nearest {best[1]})"


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            key
            for name in (*new, *(n for n in old if n not in new))
            for key in _differences(old.get(name), new.get(name), f"{prefix}{name}.")
        ]
    return [] if old == new else [prefix.rstrip(".")]


def _get(identity: Mapping[str, Any], dotted: str) -> Any:
    node: Any = identity
    for part in dotted.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _told(
    key: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    step: Step,
    done: Mapping[Step, Planned],
) -> str:
    if key == "version":
        return f"its code changed (version {old['version']} -> {new['version']})"
    if key == "inputs":
        return "its inputs changed"
    if not key.startswith("inputs."):
        field, was, now = key.removeprefix("config."), _get(old, key), _get(new, key)
        if isinstance(now, Mapping) or isinstance(was, Mapping):
            return f"{field} {'added' if was is None else 'removed'}"
        is_file = any(f.name == field and f.metadata.get("file") for f in dc.fields(step.config))
        return (
            f"the content of {field} changed"
            if is_file
            else f"{field} {short(was)} -> {short(now)}"
        )
    name = key.removeprefix("inputs.")
    was = dict(map(tuple, _get(old, key))) if isinstance(_get(old, key), list) else _get(old, key)
    fresh = [
        fed.name
        for n, fed in step.feeds()
        if n == name
        and isinstance(fed, Step)
        and done[fed].state != "reused"
        and not (isinstance(was, dict) and was.get(fed.name) == done[fed].fingerprint)
    ]
    now = [fed.name for n, fed in step.feeds() if n == name]
    detail = (
        f"{', '.join(fresh)} {'is' if len(fresh) == 1 else 'are'} new"
        if fresh
        else f"now {', '.join(now) or 'nothing'}"
    )
    return f"input {name} changed ({detail})"


def short(value: Any) -> str:
    """A value for people: 1e-6 rather than 1e-06, long text cut."""
    if isinstance(value, float):
        return format_number(value, digits=6)
    text = value if isinstance(value, str) and value else canonical(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def lines(planned: Sequence[Planned], more: Mapping[str, Sequence[str]] = {}) -> Iterator[str]:
    """The plan for people: ``sft reused``, ``rl new: learning_rate 1e-6 -> 2e-6``, and what the wiring decided on its own.

    more: step -> further lines on it.
    """
    width = max((len(plan.step.name) for plan in planned), default=0)
    used = max((len(plan.step.uses) for plan in planned), default=0)
    for plan in planned:
        why = f": {plan.why}" if plan.why else ""
        yield f"{plan.step.name:{width}}  {plan.step.uses:{used}}  {plan.state}{why}"
        for note in (*plan.step.notes, *more.get(plan.step.name, ())):
            yield f"{'':{width}}  {note}"


def dependents(planned: Sequence[Planned], name: str) -> list[str]:
    """Names of the steps that hang on a step, directly or not."""
    found = {name}
    for plan in planned:
        if any(isinstance(fed, Step) and fed.name in found for _, fed in plan.step.feeds()):
            found.add(plan.step.name)
    return [
        plan.step.name for plan in planned if plan.step.name in found and plan.step.name != name
    ]
