"""How the run was made: what each step cost, its configuration, versions and commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmstages.plugins.report.steps import Chain, FinishedStep

MAX_METRICS = 40  # shown for each step


def costs(chain: Chain) -> dict[str, Any]:
    """One row per step that has a record, and totals.

    Returns:
        rows: ``{name, stage, kind, seconds, tokens, speed, peak}``.
        seconds, tokens: their sums.
        peak: the largest memory of a step, in MB.
        longest: the seconds of the slowest step; 1 if all are 0.
    """
    rows = [_cost(step) for step in chain.steps if step.record]
    seconds = [row["seconds"] for row in rows]
    return {
        "rows": rows,
        "seconds": sum(seconds),
        "tokens": sum(row["tokens"] or 0 for row in rows),
        "peak": max((row["peak"] or 0 for row in rows), default=0),
        # Bars are drawn as shares of it, so it must not be 0.
        "longest": max(seconds, default=0.0) or 1.0,
    }


def _cost(step: FinishedStep) -> dict[str, Any]:
    return {
        "name": step.name,
        "stage": step.stage,
        "kind": step.kind,
        "seconds": float(step.record.get("seconds") or 0.0),
        "tokens": _number(step.metrics.get("tokens")),
        "speed": _number(step.metrics.get("tokens_per_second")),
        "peak": _number(step.record.get("peak_mb")),
    }


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def configurations(chain: Chain) -> list[dict[str, Any]]:
    """Name, stage, inputs, metrics and configuration of each step."""
    return [_configuration(step) for step in chain.steps]


def _configuration(step: FinishedStep) -> dict[str, Any]:
    record = step.record
    origin = ""
    if record.get("package"):
        origin = f"version {record['version']}, from {record['package']}"
    return {
        "name": step.name,
        "stage": step.stage,
        "kind": step.kind,
        "origin": origin,
        "inputs": step.inputs,
        "why": record.get("why", ""),
        "fingerprint": record.get("fingerprint", ""),
        "config": flatten(step.config),
        "metrics": list(step.metrics.items())[:MAX_METRICS],
        "more_metrics": max(0, len(step.metrics) - MAX_METRICS),
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(dotted key, value as text) of nested mappings."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{name}.")
        elif isinstance(value, str) and value:
            rows.append((name, value))
        else:
            rows.append((name, json.dumps(value, ensure_ascii=False)))
    return rows


def surroundings(chain: Chain) -> dict[str, Any]:
    """Versions, machines, commits, commands and launchers of all steps, each value once.

    More than one value of a kind means that the steps were made under different conditions.
    """
    versions: dict[str, list[str]] = {}
    machines: list[str] = []
    commits: list[str] = []
    commands: list[str] = []
    launches: list[str] = []
    for step in chain.steps:
        record = step.record
        for name, version in (record.get("versions") or {}).items():
            _add_once(versions.setdefault(name, []), str(version))
        if machine := record.get("machine"):
            _add_once(machines, f"{machine.get('system', '')}, {machine.get('cores', '?')} cores")
        if commit := record.get("commit"):
            _add_once(commits, str(commit)[:12])
        if argv := record.get("argv"):
            # Where the command is installed says nothing to others.
            _add_once(commands, " ".join([Path(argv[0]).name, *map(str, argv[1:])]))
        if launch := record.get("launch"):
            _add_once(launches, _launch(launch))
    return {
        "versions": versions,
        "machines": machines,
        "commits": commits,
        "commands": commands,
        "launches": launches,
    }


def _launch(launch: Mapping[str, Any]) -> str:
    """A launcher in words, such as ``ddp, 8 processes``."""
    backend = str(launch.get("backend", ""))
    processes = launch.get("processes", 1)
    if processes > 1:
        return f"{backend}, {processes} processes"
    return backend


def _add_once(items: list[str], value: str) -> None:
    if value and value not in items:
        items.append(value)
