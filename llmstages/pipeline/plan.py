"""Steps, what identifies their results, and the plan: what runs, what is reused, and why.

A fingerprint covers the stage's registered name and version, the identity fields of its Config, and
the fingerprints of its inputs. No path, machine or launcher enters it, so equal work is found again
wherever it was done.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmstages.core import artifacts, file_components, registry
from llmstages.core.config import to_plain
from llmstages.core.console import format_number
from llmstages.core.digest import Digests, canonical, sha256
from llmstages.core.errors import StageError
from llmstages.pipeline.store import Store

SHOWN_REASONS = 4  # differences named in the reason why a step is new
SHOWN_CHARACTERS = 40  # of a value in a reason
FILE_CONTENT = "content of its file"  # of a component that is named by its file; no field's name

DIGESTS = ".digests.json"  # in the store: digests of the files that plans have read


@dc.dataclass(frozen=True, eq=False)
class Source:
    """An input from outside the run: ``hub:org/name@revision`` or a path."""

    name: str
    kind: str


@dc.dataclass(frozen=True, eq=False)
class Step:
    """One use of a stage: its name in the run, the registered stage, a typed config, its inputs."""

    name: str
    uses: str
    stage: Any
    config: Any
    inputs: Mapping[str, Step | Source | tuple[Step | Source, ...] | None]
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.stage.output

    def sources(self) -> Iterator[tuple[str, Step | Source]]:
        """(input name, source) for every source, those of "many" inputs one by one."""
        for name, value in self.inputs.items():
            if isinstance(value, tuple):
                yield from ((name, source) for source in value)
            elif value is not None:
                yield name, value


@dc.dataclass(frozen=True)
class Planned:
    """A step with what will happen to it.

    Attributes:
        identity: what the fingerprint is a digest of.
        state: reused, new, or resumed (new, with work left by an interrupted run).
        why: the reason, where it is not reused.
    """

    step: Step
    identity: Mapping[str, Any]
    fingerprint: str
    state: str
    why: str

    @property
    def key(self) -> str:
        return f"{self.step.name}-{self.fingerprint}"


def check_kinds(steps: Sequence[Step]) -> None:
    """Check the kind of every input of every step, before any work.

    Raises:
        StageError: an input has a wrong kind; the message says which steps would fit.
    """
    for position, step in enumerate(steps):
        for name, source in step.sources():
            declared = step.stage.inputs[name]
            if artifacts.accepts(declared, source.kind):
                continue
            fits = [
                earlier.name
                for earlier in steps[:position]
                if artifacts.accepts(declared, earlier.kind)
            ]
            advice = "No step before it fits; add one that makes it"
            if fits:
                advice = (
                    f"Steps before it that fit: {', '.join(fits)}. "
                    f"Write steps.{step.name}.{name}={fits[-1]}"
                )
            raise StageError(
                f"step {step.name!r} ({step.uses}) takes {declared.rstrip('?*')} as {name!r}, "
                f"but {source.name!r} gives {source.kind}. {advice}"
            )


def make_plan(steps: Sequence[Step], store: Store) -> list[Planned]:
    """Fingerprint every step and say whether its result is in the store, and if not, why."""
    check_kinds(steps)
    digests = Digests(store.path / DIGESTS)
    planned: dict[Step, Planned] = {}
    for step in steps:
        identity = _identity(step, planned, digests)
        fingerprint = sha256(canonical(identity))[:10]
        key = f"{step.name}-{fingerprint}"
        damage = store.damage(key)
        if damage is None:
            state, why = "reused", ""
        else:
            state = "resumed" if store.has_work(key) else "new"
            why = damage or reason(step, identity, store, planned)
        planned[step] = Planned(step, identity, fingerprint, state, why)
    digests.save()
    return list(planned.values())


def changed_since(plan: Planned, planned: Sequence[Planned], store: Store) -> list[str]:
    """What of a step's files is no longer what the plan found, in words.

    A result would otherwise be stored under the fingerprint of what a file held before.
    """
    digests = Digests(store.path / DIGESTS)
    by_step = {other.step: other for other in planned}
    identity = _identity(plan.step, by_step, digests)
    return [
        _describe(change, plan.identity, identity, plan.step, by_step)
        for change in _differences(plan.identity, identity)
    ]


def _identity(step: Step, planned: Mapping[Step, Planned], digests: Digests) -> dict[str, Any]:
    components = getattr(step.stage, "components", {})
    return {
        "stage": step.uses,
        "version": registry.code_version(step.stage),
        "config": _identity_fields(step.config, step.name, digests, components),
        "inputs": {
            name: _input_identity(step, value, planned, digests)
            for name, value in step.inputs.items()
        },
    }


def _identity_fields(
    config: Any, where: str, digests: Digests, components: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The identity fields of a Config: files by content, components by name, version and fields."""
    identity: dict[str, Any] = {}
    for field in dc.fields(config):
        value, key = getattr(config, field.name), f"{where}.{field.name}"
        if field.name in (components or {}):
            identity[field.name] = {
                member: _component_identity(field.name, spec, f"{key}.{member}", digests)
                for member, spec in value.items()
            }
            if len(value) > 1:
                # Mappings are compared with their keys sorted, so the order is noted apart.
                identity[f"order of {field.name}"] = list(value)
        elif not field.metadata.get("identity", True):
            continue
        elif field.metadata.get("file"):
            identity[field.name] = digests.field(key, value)
        else:
            identity[field.name] = to_plain(value)
            canonical(identity[field.name])
    return identity


def _component_identity(
    group: str, spec: Mapping[str, Any], where: str, digests: Digests
) -> dict[str, Any]:
    cls, config = registry.component_config(group, spec)
    use = str(spec["use"])
    identity: dict[str, Any] = {"use": use, "version": registry.code_version(cls)}
    if file_components.is_file(use):
        identity["use"] = file_components.short_name(use)
        identity[FILE_CONTENT] = digests.file(file_components.path_of(use))
    return identity | _identity_fields(config, where, digests)


def _input_identity(
    step: Step, value: Any, planned: Mapping[Step, Planned], digests: Digests
) -> Any:
    """A fingerprint; for a "many" input [name, fingerprint] pairs, since names label results."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return [[source.name, _input_identity(step, source, planned, digests)] for source in value]
    if isinstance(value, Source):
        if value.name.startswith("hub:"):
            return value.name
        return digests.field(f"steps.{step.name}", value.name)[0][:10]
    if value not in planned:
        raise StageError(
            f"step {step.name!r} takes {value.name!r}, which is not before it in the list of steps"
        )
    return planned[value].fingerprint


def reason(
    step: Step, identity: Mapping[str, Any], store: Store, planned: Mapping[Step, Planned]
) -> str:
    """Why a step is new: what differs from the nearest result in the store for its name."""
    nearest: Mapping[str, Any] | None = None
    nearest_changes: list[str] = []
    best_score = (0, 0.0)
    for record in store.records(step.name):
        changes = _differences(record["identity"], identity)
        other_stage = record["identity"]["stage"] != identity["stage"]
        # Few differences first, a result of the same stage before all others, then the latest.
        score = (len(changes) + 1000 * other_stage, -record.get("finished", 0))
        if nearest is None or score < best_score:
            nearest, nearest_changes, best_score = record, changes, score
    if nearest is None:
        return "never run"
    old = store.record(nearest["key"])["identity"]
    texts = [_describe(change, old, identity, step, planned) for change in nearest_changes]
    if old["stage"] != identity["stage"]:
        # Another stage has other options and inputs; only inputs that are new say more.
        changed_inputs = [
            text
            for change, text in zip(nearest_changes, texts, strict=True)
            if change.startswith("inputs.") and text.endswith(" new)")
        ]
        texts = [f"{old['stage']} -> {identity['stage']}", *changed_inputs]
    shown = ", ".join(texts[:SHOWN_REASONS])
    if len(texts) > SHOWN_REASONS:
        shown += f", and {len(texts) - SHOWN_REASONS} more"
    return f"{shown} (nearest {nearest['key']})"


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The dotted keys whose values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*new, *(name for name in old if name not in new)]
        keys: list[str] = []
        for name in names:
            keys += _differences(old.get(name), new.get(name), f"{prefix}{name}.")
        return keys
    return [] if old == new else [prefix.rstrip(".")]


def _get(identity: Mapping[str, Any], dotted: str) -> Any:
    node: Any = identity
    for name in dotted.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _describe(
    key: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    step: Step,
    planned: Mapping[Step, Planned],
) -> str:
    """One difference for people."""
    if key == "version":
        return f"its code changed (version {old['version']} -> {new['version']})"
    if key == "inputs":
        return "its inputs changed"
    if key.startswith("inputs."):
        return _describe_input(key.removeprefix("inputs."), _get(old, key), step, planned)
    field, before, after = key.removeprefix("config."), _get(old, key), _get(new, key)
    component, is_content, _ = field.partition(f".{FILE_CONTENT}")
    if is_content:
        return f"the file of {component} changed"
    if isinstance(after, Mapping) or isinstance(before, Mapping):
        return f"{field} {'added' if before is None else 'removed'}"
    if any(other.name == field and other.metadata.get("file") for other in dc.fields(step.config)):
        return f"the content of {field} changed"
    return f"{field} {short(before)} -> {short(after)}"


def _describe_input(name: str, before: Any, step: Step, planned: Mapping[Step, Planned]) -> str:
    """What changed in an input: sources that are new, or else what it takes now."""
    fingerprints = {}
    if isinstance(before, list):  # of a "many" input: [name, fingerprint] pairs
        fingerprints = dict(map(tuple, before))
    sources = [source for input_name, source in step.sources() if input_name == name]
    fresh = []
    for source in sources:
        if not isinstance(source, Step) or planned[source].state == "reused":
            continue
        if fingerprints.get(source.name) != planned[source].fingerprint:
            fresh.append(source.name)
    if fresh:
        verb = "is" if len(fresh) == 1 else "are"
        return f"input {name} changed ({', '.join(fresh)} {verb} new)"
    now = ", ".join(source.name for source in sources) or "nothing"
    return f"input {name} changed (now {now})"


def short(value: Any) -> str:
    """A value for people: 1e-6 rather than 1e-06, long text cut."""
    if isinstance(value, float):
        return format_number(value, digits=6)
    text = value if isinstance(value, str) and value else canonical(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[: SHOWN_CHARACTERS - 3]}..."


def lines(
    planned: Sequence[Planned], more: Mapping[str, Sequence[str]] | None = None
) -> Iterator[str]:
    """The plan for people: ``sft reused``, ``rl new: learning_rate 1e-6 -> 2e-6``, and notes.

    Args:
        more: step -> further lines about it.
    """
    name_width = max((len(plan.step.name) for plan in planned), default=0)
    uses_width = max((len(plan.step.uses) for plan in planned), default=0)
    for plan in planned:
        step = plan.step
        why = f": {plan.why}" if plan.why else ""
        yield f"{step.name:{name_width}}  {step.uses:{uses_width}}  {plan.state}{why}"
        for note in (*step.notes, *(more or {}).get(step.name, ())):
            yield f"{'':{name_width}}  {note}"
