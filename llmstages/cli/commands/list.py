"""``llmstages list``: what is installed, by which package, and under which name to choose it.

No stage is imported unless a slot is named.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

from llmstages.cli.options import option_rows
from llmstages.core import registry
from llmstages.core.console import Console
from llmstages.core.errors import StageError, near
from llmstages.pipeline import own_conf
from llmstages.pipeline.hydra_errors import SETTINGS
from llmstages.pipeline.own_conf import PROVIDER

Presets = dict[str, tuple[str, str]]  # name -> (first comment of the file, where it is from)
YAML_GROUPS = ("recipe", "launch", "hardware")
OPTION_COLUMNS = ("key", "default", "allowed", "what")


def main(args: argparse.Namespace) -> int:
    """Print all groups on one line each, or one group with its members and their options."""
    console = Console()
    presets = _presets()
    if args.slot:
        _print_named(args.slot, presets, console)
    else:
        _print_all(presets, console)
    return 0


def _groups() -> list[str]:
    """What ``llmstages list`` takes: slots, groups of components, groups of YAML files."""
    slots = registry.slots()
    components = [group for group in registry.component_groups() if group not in slots]
    return [*slots, *components, *YAML_GROUPS]


def _print_named(name: str, presets: Mapping[str, Presets], console: Console) -> None:
    """A group of this name, or else the components of this name."""
    groups = _groups()
    if name in groups:
        _print_group(name, presets.get(name, {}), console)
        return
    homes = [group for group in registry.component_groups() if name in registry.entries(group)]
    stages = [stage for stage in registry.entries(registry.STAGES) if stage.endswith(f".{name}")]
    if not homes and not stages:
        raise StageError(_unknown(name, groups))
    for group in homes:
        console.say(f"{name} is one of the {group}: {_description(group, name)}")
        console.say(f"choose it as STEP.{group}.{name}={name}")
        _print_options(f"STEP.{group}.{name}.KEY=VALUE", group, name, console)
    for stage in stages:
        slot = stage.partition(".")[0]
        console.say(f"{slot}={name}: {_description(registry.STAGES, stage)}")
        _print_options(f"{slot}.KEY=VALUE", registry.STAGES, stage, console)


def _unknown(name: str, groups: Sequence[str]) -> str:
    names = [*groups]
    for group in registry.component_groups():
        names += registry.entries(group)
    return f"nothing is called {name!r}.{near(name, names)} There are: {', '.join(groups)}"


def _print_all(presets: Mapping[str, Presets], console: Console) -> None:
    component_groups = registry.component_groups()
    rows = []
    for group in _groups():
        if group not in component_groups:
            names = [
                f"{name} ({PROVIDER})" if origin == PROVIDER else name
                for name, (_, origin) in presets.get(group, {}).items()
            ]
            rows.append((group, ", ".join(_variants(group)), ", ".join(names)))
    console.table("choose as SLOT=NAME", ("slot", "variants", "presets"), rows)
    component_rows = []
    for group in component_groups:
        names = registry.entries(group)
        if names:
            component_rows.append((group, ", ".join(names)))
    console.table("choose as STEP.GROUP.NAME=NAME", ("group", "components"), component_rows)
    console.say(
        "\nllmstages list SLOT shows what each is and its options; "
        "llmstages show STEP shows a step's configuration"
    )


def _print_group(group: str, presets: Presets, console: Console) -> None:
    stages = [f"{group}.{variant}" for variant in _variants(group)]
    rows = []
    for name in stages:
        package = registry.find(registry.STAGES, name).package
        rows.append((name.partition(".")[2], package, _description(registry.STAGES, name)))
    for name, (description, origin) in presets.items():
        kind = "" if group in YAML_GROUPS else "preset"
        shown_origin = f"({origin})" if origin == PROVIDER else ""
        rows.append((name, f"{kind} {shown_origin}".strip(), description))
    console.table(f"{group}=NAME", ("name", "from", "what"), rows)
    if group in SETTINGS:
        console.table(f"{group}.KEY=VALUE", OPTION_COLUMNS, list(option_rows(SETTINGS[group])))
    for name in stages:
        _print_options(name.replace(".", "=", 1), registry.STAGES, name, console)
    if group in registry.component_groups():
        _print_components(group, console)


def _print_components(group: str, console: Console) -> None:
    entries = registry.entries(group)
    rows = []
    for name, entry in entries.items():
        rows.append((name, entry.package, _description(group, name)))
    console.table(f"STEP.{group}.NAME=NAME", ("name", "from", "what"), rows)
    for name in entries:
        _print_options(f"{group} {name}", group, name, console)


def _print_options(title: str, group: str, name: str, console: Console) -> None:
    try:
        plugin = _load(group, name)
    except StageError:
        return  # the table of the group says that it is broken
    config = getattr(plugin, "Config", None)
    if config is not None:
        rows = option_rows(config, getattr(plugin, "components", None))
        console.table(title, OPTION_COLUMNS, list(rows))


def _variants(slot: str) -> list[str]:
    """The names of a slot's stages, without the slot."""
    names = []
    for name in registry.entries(registry.STAGES):
        if name.startswith(f"{slot}."):
            names.append(name.partition(".")[2])
    return names


def _description(group: str, name: str) -> str:
    """One line about a plugin. If it cannot be imported, the line says why."""
    try:
        return registry.describe(_load(group, name))
    except StageError as error:
        return f"BROKEN: {error}"


def _load(group: str, name: str) -> Any:
    return registry.load_checked(group, name)


def _presets() -> dict[str, Presets]:
    """Group -> its presets, from our conf, from those of third parties and from ``./conf``."""
    packages = ["llmstages.conf"]
    packages += [point.value for point in entry_points(group="llmstages.conf")]
    presets: dict[str, Presets] = {}
    for package in packages:
        for group, preset, text in _preset_files(package):
            # An earlier package goes first, as when a run is composed.
            presets.setdefault(group, {}).setdefault(preset, (_first_comment(text), package))
    groups = _groups()
    for file in own_conf.files():
        group = file.parent.name
        if group in groups:
            text = file.read_text(encoding="utf-8")
            presets.setdefault(group, {})[file.stem] = (_first_comment(text), PROVIDER)
    return presets


def _preset_files(package: str) -> Iterator[tuple[str, str, str]]:
    """(group, preset, text) of the YAML files of a package; nothing if it cannot be imported."""
    try:
        folders = list(files(package).iterdir())
    except ModuleNotFoundError:
        return
    for folder in folders:
        if not folder.is_dir() or folder.name.startswith("_"):
            continue
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".yaml"):
                text = file.read_text(encoding="utf-8")
                yield folder.name, file.name.removesuffix(".yaml"), text


def _first_comment(text: str) -> str:
    """The first comment of a YAML file that is not a directive of Hydra."""
    for line in text.splitlines():
        if line.startswith("#") and "@package" not in line:
            return line[1:].strip()
    return ""
