"""Hydra's and OmegaConf's exceptions as one message that says what to write instead."""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmstages.core.errors import near


@dc.dataclass(frozen=True)
class Facts:
    """What is known around a mistake: options of a group, whether a name is a group, the values without the mistake."""

    options: Callable[[str], list[str]]
    is_group: Callable[[str], bool]
    values: Mapping[str, Any]


def mistake(error: Exception, overrides: Sequence[str], facts: Facts) -> str:
    """The message for one exception of a composition."""
    text = str(error)
    cause = str(error.__cause__ or "")
    if found := re.search(r"Could not find '([^']+)/([^/']+)'", text):
        return _option(found[1], found[2], facts)
    if found := re.search(
        r"Could not (?:override|append to config|delete from config)\W*'([^']+)'", text
    ):
        key = found[1]
        return (
            _group(key, overrides, facts) if facts.is_group(key.split("@")[0]) else _key(key, facts)
        )
    if found := re.search(r"delete from config\. '([^']+)'", text):
        return _key(found[1], facts)
    preset = re.match(r"In '([^']+/[^']+)': \w+ raised while composing", text)
    if preset and (found := re.search(r"Key '([^']+)' not in", text)):
        where = re.search(r"full_key: (\S+)", text)
        return (
            f"the preset {preset[1]}.yaml sets {where[1] if where else found[1]!r}, a key its variant does not have; "
            f"llmstages list {preset[1].split('/')[0]} names the variants"
        )
    if found := re.search(
        r"Value '(.*?)' of type .* could not be converted to (\w+)", f"{cause} {text}", re.DOTALL
    ):
        where = re.search(r"full_key: (\S+)", f"{cause} {text}")
        article = {
            "Integer": "a whole number",
            "Float": "a number",
            "Boolean": "true or false",
        }.get(found[2], f"a {found[2].lower()}")
        source = f"in {preset[1]}.yaml, " if preset else ""
        return f"{source}{where[1] if where else _line(overrides, found[1])}: {found[1]!r} is not {article}"
    if found := re.search(r"Key '([^']+)' (?:is )?not in '?\w+'?", f"{cause} {text}"):
        where = re.search(r"full_key: (\S+)", f"{cause} {text}")
        return _key(where[1] if where else found[1], facts)
    if "Config group override must be a string" in text:
        return "a slot takes the name of a variant or preset, SLOT=NAME (llmstages list); single values are set as STEP.KEY=VALUE"
    if type(error).__name__ == "OverrideParseException":
        return f"cannot read {getattr(error, 'override', '')!r}. Write KEY=VALUE, GROUP=OPTION, +GROUP@STEP=OPTION or ~KEY; a value with letters or signs beyond ASCII in quotes of its own: \"KEY='VALUE'\" ({text.splitlines()[0]})"
    if found := re.search(
        r"Invalid value assigned: str is not a ListConfig.*?full_key: (\S+)",
        f"{cause} {text}",
        re.DOTALL,
    ):
        given = next(
            (
                one.partition("=")[2]
                for one in overrides
                if one.partition("=")[0].lstrip("+") == found[1]
            ),
            "VALUE",
        )
        return f"{found[1]} takes a list; write {found[1]}=[{given}]"
    lines = [
        line
        for line in f"{text}\n{cause}".splitlines()
        if line.strip() and "object_type" not in line
    ]
    return "the configuration does not compose: " + " ".join(lines[:4])


def _line(overrides: Sequence[str], value: str) -> str:
    return next((line for line in overrides if line.endswith(f"={value}")), "a value")


def _option(group: str, name: str, facts: Facts) -> str:
    options = facts.options(group)
    listed = ", ".join(options) or "none"
    return f"{group} has no variant or preset {name!r}.{near(name, options)} There are: {listed} (llmstages list {group})"


def _group(key: str, overrides: Sequence[str], facts: Facts) -> str:
    """A group that exists but that no step of the recipe takes under this name."""
    group = key.split("@")[0]
    if (
        key.count("@") and "." in key.split("@")[1]
    ):  # filters@corpus.filters.NAME: a smaller plugin that is not there yet
        return f"there is no {key.split('@')[1]} to change. To add it, put a + in front: +{_whole(key, overrides)}"
    named = [
        step
        for step, node in facts.values.items()
        if isinstance(node, Mapping) and str(node.get("stage", "")).startswith(f"{group}.")
    ]
    if named:
        wanted = [group if step == group else f"{group}@{step}" for step in named]
        return f"no step takes {key!r} from the command line. The steps of slot {group!r} are set by: {', '.join(w + '=NAME' for w in wanted)}"
    return (
        f"the recipe has no step for the slot {group!r}. Add one: +{key}=NAME '+steps.{group}={{}}', "
        f"or choose a recipe that has it (llmstages list recipe)"
    )


def _whole(key: str, overrides: Sequence[str]) -> str:
    return next((one for one in overrides if one.startswith(f"{key}=")), f"{key}=NAME")


def _key(key: str, facts: Facts) -> str:
    """A dotted key that does not exist: names the deepest part that does, and what lies beside it."""
    node: Any = facts.values
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            break
        node = node[part]
    else:
        return f"{key} cannot be set to that"
    above = ".".join(parts[:depth])
    if not isinstance(node, Mapping):
        return f"{key}: {above} is a single value ({node!r}) and has no keys"
    if node.get("broken"):
        return str(node["broken"])
    names = [name for name in node if name not in ("stage", "use", "option", "defaults")]
    what = f"{above} has no key {part!r}" if above else f"there is no {part!r} in this run"
    return f"{what}.{near(part, names)} There are: {', '.join(map(str, names)) or 'none'}"
