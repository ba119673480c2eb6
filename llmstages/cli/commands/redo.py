"""``llmstages redo STEP``: forget a step's result, make it again, and compare the two."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.cli.commands import rm, run
from llmstages.core.console import Console
from llmstages.pipeline import history, prepare

SHOWN_FILES = 5  # names of files that differ


def main(args: argparse.Namespace) -> int:
    """Remove the step's folder and run up to the step; what depends on it is named and kept."""
    console = Console()
    prepared = prepare.prepare_past(args.overrides, args.step, console.say)
    plan = prepared.find(args.step)
    before = None
    kept = history.made_from(prepared.store, plan.key)
    if plan.state == "reused":
        before = prepared.store.record(plan.key)
        rm.forget(prepared.store, plan.key, console)
    # Planned anew, since the step is no longer there; steps after it are not part of this run.
    prepared = prepare.prepare(prepared.overrides, prepared.composed.name)
    outcome = run.perform(prepared, console)
    run.finish(outcome, console)
    if outcome.error:
        return outcome.code
    if before:
        _compare(
            args.step, before["files"], prepared.store.record(plan.key)["files"], kept, console
        )
    return 0


def _compare(
    step: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    kept: Sequence[str],
    console: Console,
) -> None:
    """Print in which files the result differs from the earlier one.

    Args:
        old, new: file name -> [size, digest].
        kept: steps made from the earlier result.
    """
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if not changed:
        console.say(f"\n{step} is the same as before, byte for byte")
        return
    console.say(
        f"\n{step} differs from before in {len(changed)} of {len(new)} files: "
        f"{', '.join(changed[:SHOWN_FILES])}"
    )
    if kept:
        console.say(
            f"{', '.join(kept)} were made from the earlier result and are kept; "
            f"llmstages redo {kept[0]} makes one again"
        )
