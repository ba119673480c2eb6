"""Recipes and presets of one's own: the YAML files of ``./conf`` where a run is started.

They lie as ours do, in ``conf/recipe/NAME.yaml`` and ``conf/SLOT/NAME.yaml``. A name that is taken
already is refused where it is chosen, since the same command would otherwise mean something else
in another folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from llmstages.core import file_components

FOLDER = "conf"
PROVIDER = "./conf"
# The files of components that an override or a YAML file names: ./my_reward.py:score
COMPONENT_FILE = re.compile(r"[^\s'\"={}\[\],:]+\.py(?=:[A-Za-z_])")


def folder() -> Path | None:
    """The folder ``./conf``; None where there is none, or where it is our own."""
    path = Path.cwd() / FOLDER
    if not path.is_dir():
        return None
    ours = Path(str(resources.files("llmstages.conf")))
    return None if path.resolve() == ours.resolve() else path


def files() -> list[Path]:
    """The YAML files of ``./conf``."""
    path = folder()
    return sorted(path.rglob("*.yaml")) if path else []


def component_files(overrides: Sequence[str]) -> list[Path]:
    """The files of components that overrides or the files of ``./conf`` name."""
    texts = [*overrides]
    for file in files():
        texts.append(file.read_text(encoding="utf-8", errors="replace"))
    names = {name for text in texts for name in COMPONENT_FILE.findall(text)}
    return [Path.cwd() / Path(name).expanduser() for name in sorted(names)]


def used_files(values: Any) -> set[Path]:
    """The files of the components in composed values."""
    if not isinstance(values, Mapping):
        return set()
    used: set[Path] = set()
    name = values.get("use")
    if isinstance(name, str) and file_components.is_file(name):
        used.add(file_components.path_of(name).resolve())
    for value in values.values():
        used |= used_files(value)
    return used
