"""``llmstages plan``: what a run would do and why, and what its training would take, without doing it."""

from __future__ import annotations

import argparse

from llmstages import forecast
from llmstages import session as sessions
from llmstages.console import Console
from llmstages.plan import lines


def main(args: argparse.Namespace) -> int:
    """Print the plan, as JSON on the last line with --json."""
    console = Console(to_stderr=args.json)
    session = sessions.prepare(args.overrides)
    composed = session.composed
    estimates = forecast.forecast(session.planned, session.store, composed.hardware, composed.launch)
    for line in lines(session.planned, {name: list(forecast.lines(estimate)) for name, estimate in estimates.items()}):
        console.say(line)
    new = sum(plan.state != "reused" for plan in session.planned)
    console.say(f"\n{new} of {len(session.planned)} steps to run, in {composed.store}/")
    for line in forecast.total(estimates, composed.hardware, composed.launch):
        console.say(line)
    if args.json:
        sessions.print_json(sessions.plan_json(session, estimates))
    return 0
