"""``llmstages ls``: what is in the store, how large it is, and which runs use it."""

from __future__ import annotations

import argparse
import dataclasses as dc
import time
from collections.abc import Sequence
from typing import Any

from llmstages.core.console import Console, format_bytes
from llmstages.pipeline import prepare, usage
from llmstages.pipeline.compose_cache import compose
from llmstages.pipeline.store import Store
from llmstages.pipeline.usage import Leftover, StoredStep

DAY = 86400


def main(args: argparse.Namespace) -> int:
    """Print the results and the work folders, as JSON on the last line with --json."""
    console = Console(to_stderr=args.json)
    composed = compose(args.overrides)
    store = Store(composed.store)
    steps = usage.stored_steps(store, composed.runs)
    left = usage.leftovers(store)
    console.table(
        f"results in {store.path}/",
        ("step", "key", "kind", "size", "age", "in runs"),
        [_step_row(step) for step in steps],
    )
    console.table(
        "work folders of steps that are not finished",
        ("key", "size", "age", "state"),
        [(item.key, format_bytes(item.size), age(item.changed), state(item)) for item in left],
    )
    cache = usage.cache_size(store)
    console.say(
        f"\n{len(steps)} results, {format_bytes(_total(steps))}; "
        f"{len(left)} work folders, {format_bytes(_total(left))}; cache {format_bytes(cache)} "
        "(store/.cache may be deleted at any time)"
    )
    if any(not step.needed for step in steps) or left:
        console.say("llmstages gc shows what could go, and removes it if you say so")
    if args.json:
        facts: dict[str, Any] = {
            "steps": [dc.asdict(step) for step in steps],
            "leftovers": [{**dc.asdict(item), "path": str(item.path)} for item in left],
            "cache": cache,
        }
        prepare.print_json(facts)
    return 0


def _step_row(step: StoredStep) -> tuple[str, ...]:
    runs = ", ".join(step.runs)
    if not runs:
        runs = "none, but one that is in a run was made from it" if step.needed else "none"
    return step.step, step.key, step.kind, format_bytes(step.size), age(step.finished), runs


def age(when: float) -> str:
    """How long ago a time was, for people."""
    seconds = max(time.time() - when, 0)
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * DAY:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / DAY:.0f} days"


def state(item: Leftover) -> str:
    """What a work folder is there for."""
    if item.in_use:
        return "runs now"
    return "continues at the next run" if item.has_checkpoints else "failed"


def _total(items: Sequence[StoredStep | Leftover]) -> int:
    return sum(item.size for item in items)
