"""``llmstages plan``: what a run would do and why, and what its training would take, without doing it."""

from __future__ import annotations

import argparse

from llmstages.core.console import Console
from llmstages.cost import plan as cost_plan
from llmstages.pipeline import prepare
from llmstages.pipeline.plan import lines


def main(args: argparse.Namespace) -> int:
    """Print the plan, as JSON on the last line with --json."""
    console = Console(to_stderr=args.json)
    session = prepare.prepare(args.overrides)
    composed = session.composed
    estimates = cost_plan.estimate_steps(
        session.planned, session.store, composed.hardware, composed.launch
    )
    for line in lines(
        session.planned,
        {name: list(cost_plan.lines(estimate)) for name, estimate in estimates.items()},
    ):
        console.say(line)
    new = sum(plan.state != "reused" for plan in session.planned)
    console.say(f"\n{new} of {len(session.planned)} steps to run, in {composed.store}/")
    for line in cost_plan.total(estimates, composed.hardware, composed.launch):
        console.say(line)
    if args.json:
        prepare.print_json(prepare.plan_json(session, estimates))
    return 0
