"""A composed run as plain values; reading it back needs no Hydra."""

from __future__ import annotations

import dataclasses as dc
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.core.digest import sha256
from llmstages.core.errors import StageError
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware

UNSAFE = re.compile(r"""[^\w.=,+@~\[\]{}() -]""")
LONGEST_NAME = 100  # bytes of a folder name, before the digest
DIGEST_LENGTH = 8


@dc.dataclass(frozen=True)
class RunConfig:
    """A run as plain values: nothing of Hydra is left in it.

    slots: step -> {"stage": name, **values}; steps: step -> {input: source}; given: the dotted
    keys that the command line sets; notes: step -> what its plan says about its composition.
    """

    seed: int
    store: str
    runs: str
    name: str
    only: str | None
    chat: str | None
    launch: Launch
    hardware: Hardware
    slots: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, Mapping[str, Any]]
    given: Sequence[str] = ()
    notes: Mapping[str, str] = dc.field(default_factory=dict)


def check_run_name(name: str, runs: str) -> None:
    """A run is one folder under ``runs``. Raises StageError for a name that would leave it."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise StageError(
            f"name={name}: the name of a run is one folder under {runs}/, so it has no slashes"
        )


def folder_name(name: str) -> str:
    """The name as one folder that every file system takes, another one for every name.

    Signs that are not safe become "_". A digest follows where something was replaced or cut.
    """
    safe = UNSAFE.sub("_", name)
    encoded = safe.encode()
    if safe == name and len(encoded) <= LONGEST_NAME:
        return name
    shortened = encoded[:LONGEST_NAME].decode(errors="ignore")
    return f"{shortened}-{sha256(name)[:DIGEST_LENGTH]}"
