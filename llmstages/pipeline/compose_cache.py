"""Compose once: the same overrides over the same files give the same run, without importing Hydra again.

The key covers the overrides and the size and time of every Python and YAML file that composing could read: ours, and
those of every package that registers something. Whatever goes wrong with the cache costs time, never a result.
Left out on purpose: configurations that read the environment (``${oc.env:...}``) are never remembered.
"""

from __future__ import annotations

import dataclasses as dc
import importlib.util
import json
import os
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from pathlib import Path

from llmstages.core import registry
from llmstages.core.config import build_config
from llmstages.core.digest import sha256
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware
from llmstages.pipeline.run_config import RunConfig

KEPT = 64  # remembered compositions


def compose(overrides: Sequence[str]) -> RunConfig:
    """compose.compose(), remembered between processes."""
    files = _files()
    try:
        stamps = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
        key = sha256(
            json.dumps([list(overrides), version("hydra-core"), version("omegaconf"), stamps])
        )
        place = _folder() / f"{key}.json"
        known = json.loads(place.read_text(encoding="utf-8")) if place.exists() else None
    except (OSError, ValueError):  # a file vanished, or a half-written entry: compose afresh
        place, known = None, None
    if known is not None:
        return RunConfig(
            **{
                **known,
                "launch": build_config(Launch, known["launch"], "launch"),
                "hardware": Hardware(**known["hardware"]),
            }
        )
    from llmstages.pipeline.compose import compose as afresh

    made = afresh(overrides)
    if place is not None and not any(
        "broken" in slot for slot in made.slots.values()
    ):  # it may be mended without a file of ours changing
        _keep(place, made, files)
    return made


def _folder() -> Path:
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmstages" / "compose"
    )


def _files() -> list[Path]:
    """Every file a composition may depend on, in a fixed order."""
    tops = {
        entry.target.split(":")[0].split(".")[0]
        for group in (registry.STAGES, *registry.COMPONENTS)
        for entry in registry.entries(group).values()
    }
    tops |= {point.value.split(".")[0] for point in entry_points(group="llmstages.conf")}
    roots: list[Path] = []
    for name in sorted(tops | {"llmstages", "llmstages.plugins", "llmstages.conf"}):
        found = importlib.util.find_spec(name)
        if found is None:
            continue
        roots += map(
            Path, found.submodule_search_locations or ([found.origin] if found.origin else [])
        )
    return sorted(
        {
            file
            for root in roots
            for file in ([root] if root.is_file() else [*root.rglob("*.py"), *root.rglob("*.yaml")])
        }
    )


def _keep(place: Path, made: RunConfig, files: Sequence[Path]) -> None:
    """Write one entry whole, and forget the oldest."""
    try:
        if any(
            "${oc.env" in file.read_text(encoding="utf-8", errors="replace")
            for file in files
            if file.suffix == ".yaml"
        ):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(dc.asdict(made)), encoding="utf-8")
        aside.replace(place)
        for old in sorted(place.parent.glob("*.json"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except (
        OSError,
        TypeError,
    ):  # no home to write to, or a value JSON cannot hold: nothing is remembered
        return
