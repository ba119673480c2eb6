"""``llmstages rm STEP``: forget a step's result."""

from __future__ import annotations

import argparse

from llmstages.core.console import Console
from llmstages.pipeline import prepare
from llmstages.pipeline.plan import dependents


def main(args: argparse.Namespace) -> int:
    """Remove the folder of a step as the overrides describe it; other fingerprints of the step stay."""
    console = Console()
    session = prepare.prepare(args.overrides)
    plan = session.find(args.step)
    if plan.state != "reused":
        console.say(f"{plan.key} is not in {session.composed.store}/; nothing to remove")
        return 0
    hanging = [
        p.step.name
        for p in session.planned
        if p.step.name in dependents(session.planned, args.step) and p.state == "reused"
    ]
    with session.store.making(plan.key, console.say):
        session.store.forget(plan.key)
    console.say(f"removed {session.store.folder(plan.key)}; the next run makes it again")
    if hanging:
        console.say(f"made from it and kept: {', '.join(hanging)}")
    return 0
