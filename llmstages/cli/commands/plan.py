"""``llmstages plan``: what a run would do and why, and what its training would cost.

Nothing is run.
"""

from __future__ import annotations

import argparse

from llmstages.core.console import Console
from llmstages.cost import plan as cost_plan
from llmstages.pipeline import prepare
from llmstages.pipeline.plan import lines


def main(args: argparse.Namespace) -> int:
    """Print the plan, as JSON on the last line with --json."""
    console = Console(to_stderr=args.json)
    prepared = prepare.prepare(args.overrides)
    composed, planned = prepared.composed, prepared.planned
    estimates = cost_plan.estimate_steps(
        planned, prepared.store, composed.hardware, composed.launch
    )
    described = {name: list(cost_plan.describe(estimates[name])) for name in estimates}
    for line in lines(planned, described):
        console.say(line)
    to_run = sum(plan.state != "reused" for plan in planned)
    console.say(f"\n{to_run} of {len(planned)} steps to run, in {composed.store}/")
    for line in cost_plan.describe_total(estimates, composed.hardware, composed.launch):
        console.say(line)
    if args.json:
        prepare.print_json(prepare.plan_json(prepared, estimates))
    return 0
