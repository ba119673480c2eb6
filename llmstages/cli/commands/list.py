"""``llmstages list``: what is installed, by whom, and under which name to choose it. Imports no stage unless a slot is named."""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points
from importlib.resources import files

from llmstages.core import registry
from llmstages.core.console import Console
from llmstages.core.errors import StageError, near

YAML_GROUPS = ("recipe", "launch", "hardware")


def main(args: argparse.Namespace) -> int:
    """All groups on one line each, or one group with a line on each member."""
    console = Console()
    presets = _presets()
    groups = [
        *registry.slots(),
        *(part for part in registry.component_groups() if part not in registry.slots()),
        *YAML_GROUPS,
    ]
    if args.slot:
        if args.slot not in groups:
            raise StageError(
                f"nothing is called {args.slot!r}.{near(args.slot, groups)} There are: {', '.join(groups)}"
            )
        return _one(args.slot, presets.get(args.slot, {}), console)
    rows = [
        (group, ", ".join(_members(group)), ", ".join(presets.get(group, {}))) for group in groups
    ]
    console.table(
        "choose as SLOT=NAME",
        ("slot", "variants", "presets"),
        [row for row in rows if row[0] not in registry.component_groups()],
    )
    parts = [
        (group, ", ".join(registry.entries(group)))
        for group in registry.component_groups()
        if registry.entries(group)
    ]
    console.table("choose as +GROUP@STEP.GROUP.NAME=NAME", ("group", "smaller plugins"), parts)
    console.say(
        "\nllmstages list SLOT says what each is; llmstages show STEP shows a step's configuration"
    )
    return 0


def _one(group: str, presets: dict[str, str], console: Console) -> int:
    rows = []
    for name in _members(group):
        rows.append(
            (
                name,
                registry.find(registry.STAGES, f"{group}.{name}").package,
                _about(registry.STAGES, f"{group}.{name}"),
            )
        )
    rows += [
        (name, "preset" if group not in YAML_GROUPS else "", about)
        for name, about in presets.items()
    ]
    console.table(f"{group}=NAME", ("name", "from", "what"), rows)
    if group in registry.component_groups():
        parts = [
            (name, entry.package, _about(group, name))
            for name, entry in registry.entries(group).items()
        ]
        console.table(f"+{group}@STEP.{group}.NAME=NAME", ("name", "from", "what"), parts)
    return 0


def _members(group: str) -> list[str]:
    return [
        name.split(".", 1)[1]
        for name in registry.entries(registry.STAGES)
        if name.startswith(f"{group}.")
    ]


def _about(group: str, name: str) -> str:
    """One line on a plugin; one that cannot be imported says why and harms nothing else."""
    try:
        return registry.describe(
            registry.load_stage(name) if group == registry.STAGES else registry.load(group, name)
        )
    except StageError as error:
        return f"BROKEN: {error}"


def _presets() -> dict[str, dict[str, str]]:
    """Group -> preset -> first comment of its file, from our conf and those of third parties."""
    found: dict[str, dict[str, str]] = {}
    for package in (
        "llmstages.conf",
        *(point.value for point in entry_points(group="llmstages.conf")),
    ):
        try:
            folders = [
                folder
                for folder in files(package).iterdir()
                if folder.is_dir() and not folder.name.startswith("_")
            ]
        except ModuleNotFoundError:
            continue
        for folder in folders:
            for file in sorted(folder.iterdir(), key=lambda file: file.name):
                if file.name.endswith(".yaml"):
                    text = file.read_text(encoding="utf-8")
                    lines = [
                        line[1:].strip()
                        for line in text.splitlines()
                        if line.startswith("#") and "@package" not in line
                    ]
                    found.setdefault(folder.name, {}).setdefault(
                        file.name.removesuffix(".yaml"), lines[0] if lines else ""
                    )
    return found
