"""``llmstages show STEP``: its configuration and where each value comes from, its inputs, metrics and lineage."""

from __future__ import annotations

import argparse
import dataclasses as dc
import time
from collections.abc import Iterator, Mapping
from typing import Any

from llmstages.core import registry
from llmstages.core.config import to_plain
from llmstages.core.console import Console, format_number, format_seconds
from llmstages.pipeline import prepare
from llmstages.pipeline.compose import origins
from llmstages.pipeline.plan import Planned, Step, short
from llmstages.pipeline.store import Store


def main(args: argparse.Namespace) -> int:
    """Print everything there is to know about one step, or about one page in it."""
    console = Console()
    if args.url:
        from llmstages.cli.document_trace import print_trace

        for line in print_trace(args.step, args.url, args.overrides):
            console.say(line)
        return 0
    made = prepare.prepare([*args.overrides, f"only={args.step}"])
    plan = made.find(args.step)
    step, entry = plan.step, registry.find(registry.STAGES, plan.step.uses)
    console.say(
        f"{step.name}  {step.uses} version {step.stage.version}, from {entry.package} ({entry.target})"
    )
    if about := registry.describe(step.stage):
        console.say(about)
    console.say(f"{plan.state}{': ' + plan.why if plan.why else ''}  {made.store.folder(plan.key)}")
    console.table(
        "configuration",
        ("key", "value", "from", "what"),
        list(_rows(plan, origins(args.overrides))),
    )
    fed = [
        (name, declared, ", ".join(one.name for n, one in step.sources() if n == name) or "-")
        for name, declared in step.stage.inputs.items()
    ]
    console.table("inputs", ("input", "takes", "from"), fed)
    for note in step.notes:
        console.say(f"  {note}")
    if plan.state == "reused":
        _result(made.store.record(plan.key), console)
    console.say("\nlineage")
    for line in _lineage(plan, {p.step: p for p in made.planned}, made.store):
        console.say(line)
    return 0


def _rows(plan: Planned, found: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    name, config = plan.step.name, plan.step.config
    parts = getattr(plan.step.stage, "components", {})
    for field in dc.fields(config):
        value, key = to_plain(getattr(config, field.name)), f"{name}.{field.name}"
        help_text = field.metadata.get("help", "") + (
            "" if field.metadata.get("identity", True) else " (not part of the fingerprint)"
        )
        if field.name not in parts:
            # the global seed is what a seed takes unless it is set itself
            default = found.get("seed", "default") if field.name == "seed" else "default"
            yield field.name, short(value), _origin(key, found, default), help_text
            continue
        yield field.name, "", "", help_text
        for member, spec in value.items():
            yield f"  {member}", spec["use"], "", ""
            for inner, item in spec.items():
                if inner != "use":
                    yield (
                        f"    {inner}",
                        short(item),
                        _origin(f"{key}.{member}.{inner}", found, "default"),
                        "",
                    )


def _origin(key: str, found: Mapping[str, str], default: str) -> str:
    """The origin of a key, or of a key above or below it (a nested group set in part)."""
    near = [
        where
        for other, where in found.items()
        if other == key or other.startswith(f"{key}.") or key.startswith(f"{other}.")
    ]
    return near[-1] if near else default


def _result(record: Mapping[str, Any], console: Console) -> None:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(record["finished"]))
    console.table(
        "metrics",
        ("metric", "value"),
        [(name, format_number(value)) for name, value in record["metrics"].items()],
    )
    size = sum(size for size, _ in record["files"].values())
    console.say(
        f"\nmade {made} in {format_seconds(record['seconds'])}, peak memory {record['peak_mb']} MB, {len(record['files'])} files, "
        f"{size / 1e6:.1f} MB, digest {record['digest'][:10]}\nwhy it was new: {record['why']}\nby: {' '.join(record['argv'])}"
    )


def _lineage(
    plan: Planned,
    planned: Mapping[Step, Planned],
    store: Store,
    depth: int = 1,
    seen: set[str] | None = None,
) -> Iterator[str]:
    """What it was made from, and that from, each step once."""
    seen = set() if seen is None else seen
    yield f"{'  ' * depth}{plan.key}  {plan.step.uses}  {plan.state}"
    for name, fed in plan.step.sources():
        if not isinstance(fed, Step):
            yield f"{'  ' * (depth + 1)}{fed.name}  ({name})"
        elif fed.name not in seen:
            seen.add(fed.name)
            yield from _lineage(planned[fed], planned, store, depth + 1, seen)
