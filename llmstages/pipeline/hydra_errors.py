"""Hydra's and OmegaConf's exceptions as one message that says what to write instead.

Hydra's exceptions carry their facts in their text alone, so each kind is recognized by its words.
"""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmstages.core import registry
from llmstages.core.config import renamed_to, unknown_key
from llmstages.core.errors import StageError, first_line, near
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware

# Groups that say how or on what a run is done, never what it makes: presets of one dataclass each.
SETTINGS: dict[str, type] = {"launch": Launch, "hardware": Hardware}
DISCRIMINATORS = ("stage", "use", "option", "defaults")  # keys that say what a node is
ARTICLES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
KEY_REFUSED = re.compile(r"Could not (?:override|append to config|delete from config)\W*'([^']+)'")
NOT_A_LIST = re.compile(
    r"Invalid value assigned: str is not a ListConfig.*?full_key: (\S+)", re.DOTALL
)
WRONG_TYPE = re.compile(r"Value '(.*?)' of type .* could not be converted to (\w+)", re.DOTALL)


@dc.dataclass(frozen=True)
class Facts:
    """What is known around a mistake.

    Attributes:
        options: ``options(group)`` lists the variants and presets of a group.
        is_group: whether a name is a group.
        values: the composed values, without the mistake.
        renamed: earlier names, as in conf/renamed.yaml.
    """

    options: Callable[[str], list[str]]
    is_group: Callable[[str], bool]
    values: Mapping[str, Any]
    renamed: Mapping[str, Mapping[str, Any]] = dc.field(default_factory=dict)


def explain(error: Exception, overrides: Sequence[str], facts: Facts) -> str:
    """The message for one exception of a composition."""
    text = str(error)
    with_cause = f"{error.__cause__ or ''} {text}"
    if type(error).__name__ == "OverrideParseException":
        return _unreadable(error)
    if match := re.search(r"Could not find '([^']+)/([^/']+)'", text):
        return _unknown_option(match[1], match[2], facts)
    if match := KEY_REFUSED.search(text):
        key = match[1]
        if facts.is_group(key.split("@")[0]):
            return _unused_group(key, overrides, facts)
        return _unknown_key(key, facts)
    if match := re.search(r"delete from config\. '([^']+)'", text):
        return _unknown_key(match[1], facts)
    preset = re.match(r"In '([^']+/[^']+)': \w+ raised while composing", text)
    if preset and (match := re.search(r"Key '([^']+)' not in", text)):
        return _unknown_key_of_preset(preset[1], _full_key(text) or match[1], facts)
    if match := WRONG_TYPE.search(with_cause):
        return _wrong_type(match, with_cause, preset, overrides)
    if match := re.search(r"Key '([^']+)' (?:is )?not in '?\w+'?", with_cause):
        return _unknown_key(_full_key(with_cause) or match[1], facts)
    if match := re.search(r"Ambiguous value for argument '(.+)'$", text, re.MULTILINE):
        return (
            f"{match[1]} may be one text or a sweep{_in_quotes(match[1])}. "
            "A list is KEY=[A,B]; a sweep needs --multirun"
        )
    if "Config group override must be a string" in text:
        return (
            "a slot takes the name of a variant or preset, SLOT=NAME (llmstages list); "
            "single values are set as STEP.KEY=VALUE"
        )
    if match := NOT_A_LIST.search(with_cause):
        return _not_a_list(match[1], overrides)
    return _in_their_words(text, with_cause, error)


def _no_value(key: str) -> str:
    return (
        f"{key}=null means that {key} has no value, but it needs one. The word itself is "
        f"{key}='\"null\"' in a shell, a file of that name ./null"
    )


def _in_their_words(text: str, with_cause: str, error: Exception) -> str:
    """What the libraries say of an error that has no explanation above."""
    if "is not Optional" in with_cause:
        return _no_value(_full_key(with_cause))
    lines = [line for line in f"{text}\n{error.__cause__ or ''}".splitlines() if line.strip()]
    useful = [line for line in lines if "object_type" not in line]
    return "the configuration does not compose: " + " ".join(useful[:4])


def _full_key(text: str) -> str:
    """The dotted key that OmegaConf names in its message; "" where it names none."""
    match = re.search(r"full_key: (\S+)", text)
    return match[1] if match else ""


def _unreadable(error: Exception) -> str:
    given = str(getattr(error, "override", ""))
    return (
        f"cannot read {given!r}. Write KEY=VALUE, GROUP=OPTION, +GROUP@STEP=OPTION or ~KEY"
        f"{_in_quotes(given)} ({first_line(error)})"
    )


def _in_quotes(override: str) -> str:
    """The advice to put a value into quotes, as a word for the shell; "" without a value."""
    key, _, value = override.partition("=")
    if not key or not value:
        return ""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    word = re.sub(r'([\\"$`])', r"\\\1", f"{key}='{escaped}'")
    return f'. A value with signs of its own needs quotes: "{word}"'


def _unknown_key_of_preset(preset: str, key: str, facts: Facts) -> str:
    slot = preset.split("/")[0]
    step, _, name = key.partition(".")
    node = facts.values.get(step)
    # The run without the preset usually has the same variant in this step: ask its Config.
    config = _config_of([step], node) if isinstance(node, Mapping) else None
    if config and (new := renamed_to(config, name)):
        return f"the preset {preset}.yaml sets {key!r}, which was renamed to {step}.{new}"
    return (
        f"the preset {preset}.yaml sets {key!r}, a key that its variant does not have; "
        f"llmstages list {slot} names the variants"
    )


def _wrong_type(
    match: re.Match[str], text: str, preset: re.Match[str] | None, overrides: Sequence[str]
) -> str:
    value, kind = match[1], match[2]
    source = f"in {preset[1]}.yaml, " if preset else ""
    key = _full_key(text)
    if not key:
        key = next((line for line in overrides if line.endswith(f"={value}")), "a value")
    return f"{source}{key}: {value!r} is not {ARTICLES.get(kind, f'a {kind.lower()}')}"


def _not_a_list(key: str, overrides: Sequence[str]) -> str:
    value = "VALUE"
    for override in overrides:
        name, _, text = override.partition("=")
        if name.lstrip("+") == key:
            value = text
            break
    return f"{key} takes a list; write {key}=[{value}]"


def _unknown_option(group: str, name: str, facts: Facts) -> str:
    new = facts.renamed.get("options", {}).get(group, {}).get(name)
    if new:
        return f"{group}={name} was renamed to {group}={new}"
    options = facts.options(group)
    return (
        f"{group} has no variant or preset {name!r}.{near(name, options)} "
        f"There are: {', '.join(options) or 'none'} (llmstages list {group})"
    )


def _unused_group(key: str, overrides: Sequence[str], facts: Facts) -> str:
    """The message for a group that exists, but that no step of the recipe takes by this name."""
    group, _, place = key.partition("@")
    if "." in place:  # filters@corpus.filters.NAME: a component that is not there yet
        whole = next((text for text in overrides if text.startswith(f"{key}=")), f"{key}=NAME")
        return f"there is no {place} to change. To add it, put a + in front: +{whole}"
    new = facts.renamed.get("steps", {}).get(place)
    if new:
        return f"the step {place} was renamed to {new}: write {group}@{new}=NAME"
    steps = [
        name
        for name, node in facts.values.items()
        if isinstance(node, Mapping) and str(node.get("stage", "")).startswith(f"{group}.")
    ]
    if steps:
        keys = [group if step == group else f"{group}@{step}" for step in steps]
        return (
            f"no step takes {key!r} from the command line. The steps of slot {group!r} are set by: "
            f"{', '.join(f'{name}=NAME' for name in keys)}"
        )
    return (
        f"the recipe has no step for the slot {group!r}. Add one: +{key}=NAME "
        f"'+steps.{group}={{}}', or choose a recipe that has it (llmstages list recipe)"
    )


def _unknown_key(key: str, facts: Facts) -> str:
    """The message for a dotted key that does not exist: the deepest part that does, its keys."""
    node: Any = facts.values
    names = key.split(".")
    parents: list[str] = []
    for name in names:
        if not isinstance(node, Mapping) or name not in node:
            break
        node = node[name]
        parents.append(name)
    else:
        return f"{key} cannot be set to that"
    missing, parent = names[len(parents)], ".".join(parents)
    if not isinstance(node, Mapping):
        return f"{key}: {parent} is a single value ({node!r}) and has no keys"
    if node.get("broken"):
        return str(node["broken"])
    if config := _config_of(parents, node):
        return unknown_key(config, parent, missing)
    new = facts.renamed.get("steps", {}).get(missing)
    if new and parent in ("", "steps"):
        return f"the step {missing} was renamed to {new}"
    known = [name for name in node if name not in DISCRIMINATORS]
    if parents and parents[-1] in registry.component_groups():
        return _unknown_member(parent, missing, parents[-1], known)
    what = f"{parent} has no key {missing!r}" if parent else f"there is no {missing!r} in this run"
    return f"{what}.{near(missing, known)} There are: {', '.join(map(str, known)) or 'none'}"


def _unknown_member(parent: str, missing: str, group: str, known: Sequence[str]) -> str:
    """The message for a component that a step does not have: how to set one, or to add one."""
    names = registry.entries(group)
    example = missing if missing in names else "NAME"
    return (
        f"{parent} has no {missing!r}.{near(missing, known)} There are: "
        f"{', '.join(known) or 'none'}. To add one: {parent}.{missing}={example}, where NAME is "
        f"one of {', '.join(names)}, or a file of yours, ./FILE.py:NAME"
    )


def _config_of(parents: Sequence[str], node: Mapping[str, Any]) -> type | None:
    """The Config class of a node, where it is that of a stage or component."""
    if "option" in node:
        return SETTINGS.get(parents[0])
    try:
        if "stage" in node:
            return registry.load_stage(str(node["stage"])).Config  # type: ignore[attr-defined]
        if "use" in node and len(parents) > 1:
            return registry.load_checked(parents[-2], str(node["use"])).Config  # type: ignore
    except StageError:
        return None
    return None
