"""``llmstages show STEP``: its configuration and where each value comes from, inputs and lineage.

For a finished step, its metrics and its record as well.
"""

from __future__ import annotations

import argparse
import dataclasses as dc
import time
from collections.abc import Iterator, Mapping
from typing import Any

from llmstages.cli.options import allowed_values, help_of
from llmstages.core import registry
from llmstages.core.config import to_plain
from llmstages.core.console import Console, format_number, format_seconds
from llmstages.pipeline import history, prepare
from llmstages.pipeline.compose import origins
from llmstages.pipeline.plan import Planned, Step, short
from llmstages.pipeline.store import Store

Row = tuple[str, str, str, str, str]  # key, value, origin, allowed values, help text


def main(args: argparse.Namespace) -> int:
    """Print everything there is to know about one step, or about one page in it."""
    console = Console()
    if args.url:
        from llmstages.serve.document_trace import trace_lines

        for line in trace_lines(args.step, args.url, args.overrides):
            console.say(line)
        return 0
    if args.log:
        file = history.step_log(args.step, args.overrides)
        console.say(str(file))
        console.say(file.read_text(encoding="utf-8", errors="replace").rstrip())
        return 0
    prepared = prepare.prepare_past(args.overrides, args.step, console.say)
    plan = prepared.find(args.step)
    _print_head(plan, prepared.store, console)
    console.table(
        "configuration",
        ("key", "value", "from", "allowed", "what"),
        list(_option_rows(plan.step, origins(prepared.overrides))),
    )
    console.table("inputs", ("input", "takes", "from"), _input_rows(plan.step))
    for note in plan.step.notes:
        console.say(f"  {note}")
    if plan.state == "reused":
        _print_result(prepared.store.record(plan.key), console)
    console.say("\nlineage")
    planned = {other.step: other for other in prepared.planned}
    for line in _lineage(plan, planned, depth=1, shown=set()):
        console.say(line)
    return 0


def _print_head(plan: Planned, store: Store, console: Console) -> None:
    step = plan.step
    entry = registry.find(registry.STAGES, step.uses)
    console.say(
        f"{step.name}  {step.uses} version {step.stage.version}, "
        f"from {entry.package} ({entry.target})"
    )
    description = registry.describe(step.stage)
    if description:
        console.say(description)
    why = f": {plan.why}" if plan.why else ""
    console.say(f"{plan.state}{why}  {store.folder(plan.key)}")


def _option_rows(step: Step, origin_of: Mapping[str, str]) -> Iterator[Row]:
    """The fields of a step's Config, and below a field of components those of each component.

    Args:
        origin_of: dotted key -> where its value comes from.
    """
    config_class = type(step.config)
    component_groups = getattr(step.stage, "components", {})
    for field in dc.fields(step.config):
        value = to_plain(getattr(step.config, field.name))
        key = f"{step.name}.{field.name}"
        help_text = help_of(config_class, field)
        if field.name in component_groups:
            yield field.name, "", "", "", help_text
            for member, spec in value.items():
                yield from _component_rows(field.name, member, spec, key, origin_of)
            continue
        # A field called `seed` takes the seed of the run unless it is set itself.
        default = origin_of.get("seed", "default") if field.name == "seed" else "default"
        origin = _origin(key, origin_of, default)
        yield (
            field.name,
            short(value),
            origin,
            allowed_values(config_class, field.name),
            help_text,
        )


def _component_rows(
    group: str, member: str, spec: Mapping[str, Any], key: str, origin_of: Mapping[str, str]
) -> Iterator[Row]:
    cls, config = registry.component_config(group, spec)
    yield f"  {member}", spec["use"], "", "", registry.describe(cls)
    fields = {field.name: field for field in dc.fields(config)}
    for name, value in spec.items():
        if name == "use":
            continue
        yield (
            f"    {name}",
            short(value),
            _origin(f"{key}.{member}.{name}", origin_of, "default"),
            allowed_values(type(config), name),
            help_of(type(config), fields[name]),
        )


def _origin(key: str, origin_of: Mapping[str, str], default: str) -> str:
    """The origin of a key, or of a key above or below it (a nested group set in part)."""
    origin = default
    for other, where in origin_of.items():
        if other == key or other.startswith(f"{key}.") or key.startswith(f"{other}."):
            origin = where
    return origin


def _input_rows(step: Step) -> list[tuple[str, str, str]]:
    rows = []
    for name, declared in step.stage.inputs.items():
        sources = [source.name for input_name, source in step.sources() if input_name == name]
        rows.append((name, declared, ", ".join(sources) or "-"))
    return rows


def _print_result(record: Mapping[str, Any], console: Console) -> None:
    metrics = [(name, format_number(value)) for name, value in record["metrics"].items()]
    console.table("metrics", ("metric", "value"), metrics)
    made_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(record["finished"]))
    size = sum(size for size, _ in record["files"].values())
    console.say(
        f"\nmade {made_at} in {format_seconds(record['seconds'])}, "
        f"peak memory {record['peak_mb']} MB, {len(record['files'])} files, "
        f"{size / 1e6:.1f} MB, digest {record['digest'][:10]}"
    )
    console.say(f"why it was new: {record['why']}")
    console.say(f"by: {' '.join(record['argv'])}")


def _lineage(
    plan: Planned, planned: Mapping[Step, Planned], depth: int, shown: set[str]
) -> Iterator[str]:
    """What a step was made from, and that from, indented; each step once."""
    indent = "  " * depth
    yield f"{indent}{plan.key}  {plan.step.uses}  {plan.state}"
    for name, source in plan.step.sources():
        if not isinstance(source, Step):
            yield f"{indent}  {source.name}  ({name})"
        elif source.name not in shown:
            shown.add(source.name)
            yield from _lineage(planned[source], planned, depth + 1, shown)
