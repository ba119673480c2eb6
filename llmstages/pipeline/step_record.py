"""The record of a finished step: what made it, when, where, with which code, and at what cost."""

from __future__ import annotations

import dataclasses as dc
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from llmstages.core import registry
from llmstages.core.config import to_plain
from llmstages.launch.config import Launch
from llmstages.pipeline.plan import Planned

LIBRARIES = (
    "llmstages",
    "torch",
    "transformers",
    "trl",
    "datasets",
    "tokenizers",
    "accelerate",
    "peft",
    "deepspeed",
)


def make_record(
    plan: Planned,
    launch: Launch,
    metrics: Mapping[str, Any],
    started: float,
    seconds: float,
    seconds_before: float = 0.0,
) -> dict[str, Any]:
    """What one may want to know about a finished step in ten years.

    Args:
        started: seconds since the epoch.
        seconds: that the step took.
        seconds_before: those of earlier attempts, which this one continued.
    """
    step = plan.step
    trains = getattr(step.stage, "trains", False)
    inputs: dict[str, list[str]] = {name: [] for name in step.inputs}
    for name, source in step.sources():
        inputs[name].append(source.name)
    # The peak of a Slurm job is not known here.
    peak_mb = 0 if launch.as_job(trains) else _peak_mb(launch.backend == "inline")
    return {
        "step": step.name,
        "stage": step.uses,
        "kind": step.kind,
        "version": str(step.stage.version),
        "package": registry.find(registry.STAGES, step.uses).package,
        "fingerprint": plan.fingerprint,
        "identity": plan.identity,
        "config": to_plain(step.config),
        "inputs": inputs,
        "metrics": dict(metrics),
        "why": plan.why,
        "started": started,
        "finished": started + seconds,
        "seconds": round(seconds_before + seconds, 3),
        "seconds_before": round(seconds_before, 3),
        "peak_mb": peak_mb,
        "launch": dc.asdict(launch),
        "processes": launch.process_count(trains),
        "argv": sys.argv,
        "versions": _versions(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "commit": _commit(),
    }


def reset_peak_memory() -> None:
    """Start to measure the peak memory of a step.

    Linux keeps one peak for the life of a process unless it is reset.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # another system, or not allowed: the peak is then that of the run so far


def _peak_mb(inline: bool) -> int:
    """Peak memory of the step in MB.

    Where steps run as processes, it is that of the largest child so far.
    """
    if not inline:
        return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    status = Path("/proc/self/status")
    if not status.exists():
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _commit() -> str | None:
    """The commit of the folder in which the run was started, if it is a git repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() or None
