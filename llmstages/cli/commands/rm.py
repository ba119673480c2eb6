"""``llmstages rm STEP``: forget a step's result."""

from __future__ import annotations

import argparse

from llmstages.core.console import Console
from llmstages.pipeline import prepare
from llmstages.pipeline.plan import dependents
from llmstages.pipeline.prepare import PreparedRun
from llmstages.pipeline.store import Store


def main(args: argparse.Namespace) -> int:
    """Remove the folder of a step as the overrides describe it; other results of the step stay."""
    console = Console()
    prepared = prepare.prepare(args.overrides)
    plan = prepared.find(args.step)
    if plan.state != "reused":
        console.say(f"{plan.key} is not in {prepared.composed.store}/; nothing to remove")
        return 0
    forget(prepared.store, plan.key, console)
    console.say(f"removed {prepared.store.folder(plan.key)}; the next run makes it again")
    kept = kept_dependents(prepared, args.step)
    if kept:
        console.say(f"made from it and kept: {', '.join(kept)}")
    return 0


def forget(store: Store, key: str, console: Console) -> None:
    """Remove a finished step once no other run is making it."""
    with store.making(key, console.say):
        store.forget(key)


def kept_dependents(prepared: PreparedRun, step: str) -> list[str]:
    """The finished steps that depend on a step."""
    names = dependents(prepared.planned, step)
    states = {plan.step.name: plan.state for plan in prepared.planned}
    return [name for name in names if states[name] == "reused"]
