"""``llmstages plan``: what a run would do and why, without doing it."""

from __future__ import annotations

import argparse

from llmstages import session as sessions
from llmstages.console import Console
from llmstages.plan import lines


def main(args: argparse.Namespace) -> int:
    """Print the plan, as JSON on the last line with --json."""
    console = Console(to_stderr=args.json)
    session = sessions.prepare(args.overrides)
    for line in lines(session.planned):
        console.say(line)
    new = sum(plan.state != "reused" for plan in session.planned)
    console.say(f"\n{new} of {len(session.planned)} steps to run, in {session.composed.store}/")
    if args.json:
        sessions.print_json(sessions.plan_json(session))
    return 0
