"""``llmstages plan``: what a run would do and why, and what its training would cost.

Nothing is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llmstages.core.console import Console
from llmstages.cost import plan as cost_plan
from llmstages.pipeline import history, prepare
from llmstages.pipeline.overrides import command, key_of, value_of
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
    _hint_at_last_run(args.overrides, console)
    if args.json:
        prepare.print_json(prepare.plan_json(prepared, estimates))
    return 0


def _hint_at_last_run(overrides: Sequence[str], console: Console) -> None:
    """Say so where the plan is of another recipe than the last run."""
    past = history.last_invocation([word for word in overrides if key_of(word) != "name"])
    if past and value_of(past.overrides, "recipe"):
        console.say(
            "this is the plan of the default recipe; that of the last run: "
            f"{command('plan', past.overrides, *overrides)}"
        )
