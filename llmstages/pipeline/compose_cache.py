"""Compose once: the same overrides over the same files give the same run, without importing Hydra.

The key covers the overrides, and the size and time of every Python and YAML file that composing
could read: ours, those of every package that registers something, those in ``./conf``, and the
files that components are named by. Whatever goes wrong with
the cache costs time, never a result. Left out on purpose: configurations that read the
environment (``${oc.env:...}``) are never remembered.
"""

from __future__ import annotations

import dataclasses as dc
import importlib.util
import json
import os
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

from llmstages.core import registry
from llmstages.core.config import build_config
from llmstages.core.digest import sha256
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware
from llmstages.pipeline import own_conf
from llmstages.pipeline.run_config import RunConfig

MOST_ENTRIES = 64


def compose(overrides: Sequence[str]) -> RunConfig:
    """compose.compose(), remembered between processes."""
    files = [*_files(), *own_conf.files(), *own_conf.component_files(overrides)]
    place = _place(overrides, files)
    if place is not None and (known := _read(place)) is not None:
        return known
    from llmstages.pipeline.compose import compose as compose_afresh

    composed = compose_afresh(overrides)
    # A stage that could not be imported may be fixed without a change to a file that we look at.
    has_broken_stage = any("broken" in values for values in composed.slots.values())
    # A path with blanks may not have been seen in the texts: then nothing would notice an edit.
    watched = {file.resolve() for file in files}
    is_watched = own_conf.used_files(composed.slots) <= watched
    if place is not None and is_watched and not has_broken_stage:
        _remember(place, composed, files)
    return composed


def _place(overrides: Sequence[str], files: Sequence[Path]) -> Path | None:
    """The entry of these overrides; None if a file vanished meanwhile."""
    stamps = []
    try:
        for file in files:
            info = file.stat()
            stamps.append((str(file), info.st_size, info.st_mtime_ns))
    except OSError:
        return None
    libraries = [version("hydra-core"), version("omegaconf")]
    key = sha256(json.dumps([list(overrides), *libraries, stamps]))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "llmstages" / "compose" / f"{key}.json"


def _read(place: Path) -> RunConfig | None:
    """A remembered run; None if it is absent or half written."""
    try:
        values: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    values["launch"] = build_config(Launch, values["launch"], "launch")
    values["hardware"] = Hardware(**values["hardware"])
    return RunConfig(**values)


def _files() -> list[Path]:
    """Every file that a composition may depend on, in a fixed order."""
    packages = {"llmstages", "llmstages.plugins", "llmstages.conf"}
    for group in (registry.STAGES, *registry.component_groups()):
        for entry in registry.entries(group).values():
            packages.add(entry.target.split(":")[0].split(".")[0])
    for point in entry_points(group="llmstages.conf"):
        packages.add(point.value.split(".")[0])
    files: set[Path] = set()
    for package in sorted(packages):
        spec = importlib.util.find_spec(package)
        if spec is None:
            continue
        roots = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
        for root in map(Path, roots):
            if root.is_file():
                files.add(root)
            else:
                files.update(root.rglob("*.py"), root.rglob("*.yaml"))
    return sorted(files)


def _remember(place: Path, composed: RunConfig, files: Sequence[Path]) -> None:
    """Write an entry whole, and delete the oldest ones."""
    try:
        for file in files:
            if file.suffix != ".yaml":
                continue
            if "${oc.env" in file.read_text(encoding="utf-8", errors="replace"):
                return
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(dc.asdict(composed)), encoding="utf-8")
        temporary.replace(place)
        entries = sorted(place.parent.glob("*.json"), key=lambda entry: entry.stat().st_mtime)
        for oldest in entries[:-MOST_ENTRIES]:
            oldest.unlink(missing_ok=True)
    except (OSError, TypeError):
        # No home to write to, or a value that JSON cannot hold: nothing is remembered.
        return
