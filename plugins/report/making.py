"""How it was made: what each step cost, its configuration, the versions, and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmstages.plugins.report.steps import Chain, View


def costs(chain: Chain) -> dict[str, Any]:
    """A row a step, and the sums. Steps without a record are left out: nothing is known of them."""
    rows = [
        {
            "name": s.name,
            "stage": s.stage,
            "kind": s.kind,
            "seconds": float(s.record.get("seconds") or 0.0),
            "tokens": _number(s.metrics.get("tokens")),
            "speed": _number(s.metrics.get("tokens_per_second")),
            "peak": _number(s.record.get("peak_mb")),
            "bytes": sum(size for size, _ in (s.record.get("files") or {}).values()),
        }
        for s in chain.steps
        if s.record
    ]
    return {
        "rows": rows,
        "seconds": sum(r["seconds"] for r in rows),
        "tokens": sum(r["tokens"] or 0 for r in rows),
        "peak": max((r["peak"] or 0 for r in rows), default=0),
        "most": max((r["seconds"] for r in rows), default=0.0) or 1.0,
        "bytes": sum(r["bytes"] for r in rows),
    }


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def configurations(chain: Chain) -> list[dict[str, Any]]:
    """Name, stage, inputs, metrics and configuration of each step."""
    return [
        {
            "name": s.name,
            "stage": s.stage,
            "kind": s.kind,
            "about": _about(s),
            "inputs": s.record.get("inputs") or {},
            "why": s.record.get("why", ""),
            "fingerprint": s.record.get("fingerprint", ""),
            "config": list(flat(s.config)),
            "metrics": list(s.metrics.items())[:40],
            "more": max(0, len(s.metrics) - 40),
        }
        for s in chain.steps
    ]


def _about(step: View) -> str:
    return (
        f"version {step.record['version']}, from {step.record['package']}"
        if step.record.get("package")
        else ""
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values as text."""
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out += flat(value, f"{name}.")
        else:
            out.append(
                (
                    name,
                    value
                    if isinstance(value, str) and value
                    else json.dumps(value, ensure_ascii=False),
                )
            )
    return out


def surroundings(chain: Chain) -> dict[str, Any]:
    """Versions, machines, commits and commands of all steps, each value once; more than one is worth seeing."""
    versions: dict[str, list[str]] = {}
    machines, commits, commands, launches = [], [], [], []
    for step in chain.steps:
        for name, version in (step.record.get("versions") or {}).items():
            _once(versions.setdefault(name, []), str(version))
        if machine := step.record.get("machine"):
            _once(machines, f"{machine.get('system', '')}, {machine.get('cores', '?')} cores")
        if commit := step.record.get("commit"):
            _once(commits, str(commit)[:12])
        if argv := step.record.get("argv"):
            _once(commands, " ".join([Path(argv[0]).name, *map(str, argv[1:])]))
        if launch := step.record.get("launch"):
            _once(
                launches,
                str(launch.get("how", ""))
                + (f", {launch['processes']} processes" if launch.get("processes", 1) > 1 else ""),
            )
    return {
        "versions": versions,
        "machines": machines,
        "commits": commits,
        "commands": commands,
        "launches": launches,
    }


def _once(items: list[str], value: str) -> None:
    if value and value not in items:
        items.append(value)
