"""A composed run as plain values, apart from the code that composes it: reading it back needs no Hydra."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from typing import Any

from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware


@dc.dataclass(frozen=True)
class RunConfig:
    """A run as plain values: nothing of Hydra is left in it.

    slots: step -> {"stage": name, **values}; steps: step -> {input: source}.
    """

    seed: int
    store: str
    runs: str
    name: str
    only: str | None
    launch: Launch
    hardware: Hardware
    slots: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, Mapping[str, Any]]
