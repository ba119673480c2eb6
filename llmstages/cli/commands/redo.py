"""``llmstages redo STEP``: forget a step's result, make it again, and say whether it came out the same."""

from __future__ import annotations

import argparse

from llmstages.cli.commands import run
from llmstages.core.console import Console
from llmstages.pipeline import prepare
from llmstages.pipeline.plan import dependents


def main(args: argparse.Namespace) -> int:
    """Remove the step's folder and run up to the step; what hangs on it is named and kept."""
    console = Console()
    session = prepare.prepare(args.overrides)
    plan = session.find(args.step)
    before = session.store.record(plan.key) if plan.state == "reused" else None
    hanging = [
        p.step.name
        for p in session.planned
        if p.step.name in dependents(session.planned, args.step) and p.state == "reused"
    ]
    with session.store.making(plan.key, console.say):
        session.store.forget(plan.key)
    session = prepare.prepare([*args.overrides, f"only={args.step}"])
    outcome = run.perform(session, console)
    run.finish(outcome, console)
    if outcome.error:
        return outcome.code
    after = session.store.record(plan.key)
    if before:
        old, new = before["files"], after["files"]
        changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        console.say(
            f"\n{args.step} is the same as before, byte for byte"
            if not changed
            else f"\n{args.step} differs from before in {len(changed)} of {len(new)} files: {', '.join(changed[:5])}"
        )
        if hanging and changed:
            console.say(
                f"{', '.join(hanging)} were made from the earlier result and are kept; llmstages redo {hanging[0]} makes one again"
            )
    return 0
