"""``llmstages run``: plan, make what is missing, and tell what came of it."""

from __future__ import annotations

import argparse
import dataclasses as dc
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.core.console import Console, format_number, format_seconds
from llmstages.pipeline import prepare
from llmstages.pipeline.prepare import PreparedRun
from llmstages.pipeline.runner import Outcome, Run, execute


def main(args: argparse.Namespace) -> int:
    """Run one configuration, or with --multirun every combination of a sweep."""
    console = Console(to_stderr=args.json)
    if args.multirun:
        return _sweep(args, console)
    outcome = perform(prepare.prepare(args.overrides, args.name), console)
    finish(outcome, console)
    if args.json:
        prepare.print_json(prepare.outcome_json(outcome))
    return outcome.code


def perform(session: PreparedRun, console: Console) -> Outcome:
    """Execute the plan of a session."""
    composed = session.composed
    return execute(
        session.planned, Run(session.store, composed.name, composed.runs, composed.launch, console)
    )


def finish(outcome: Outcome, console: Console) -> None:
    """Steps, claims, report, and what to do next."""
    rows = [
        (
            name,
            r.state,
            format_seconds(r.seconds) if r.state != "reused" else "",
            headline(r.metrics),
        )
        for name, r in outcome.results.items()
    ]
    console.table("steps", ("step", "state", "time", "metrics"), rows)
    claims = prepare.claims(outcome)
    console.table(
        "claims",
        ("", "claim", "value", "target"),
        [
            ("met" if c["met"] else "MISSED", c["name"], format_number(c["value"]), c["target"])
            for c in claims
        ],
    )
    if report := prepare.report_path(outcome):
        console.say(f"\nreport  {report}")
    if outcome.error:  # last, so that it is what one sees
        console.say(f"\nerror: {outcome.error}")
    elif any(a.kind == "model" for a in outcome.artifacts.values()):
        console.say("next    llmstages chat")


def headline(metrics: Mapping[str, Any], most: int = 4) -> str:
    """The first few metrics of a step, in the order the stage gave them."""
    return "  ".join(
        f"{name} {format_number(value)}" for name, value in list(metrics.items())[:most]
    )


def _sweep(args: argparse.Namespace, console: Console) -> int:
    """Run every combination; what they share is made once, since the store knows it."""
    from llmstages.pipeline.compose import expand

    combinations = expand(args.overrides)
    for overrides in combinations:
        prepare.prepare(
            overrides
        )  # a mistake in the last combination should not wait for the others
    outcomes: list[tuple[str, Outcome]] = []
    for number, overrides in enumerate(combinations, 1):
        varied = [o for o in overrides if o not in args.overrides]
        label = " ".join(varied) or "as given"
        console.say(f"\n[{number}/{len(combinations)}] {label}")
        session = prepare.prepare(overrides, args.name)
        name = "+".join([session.composed.name, *(o.replace("/", "_") for o in varied)])
        session = _named(session, name)
        outcome = perform(session, console)
        outcomes.append((label, outcome))
        if outcome.error:
            console.say(f"error: {outcome.error}")
        if outcome.code in (75, 130):
            break
    _compare(outcomes, console)
    if args.json:
        prepare.print_json(
            {
                "runs": [
                    {"overrides": label, **prepare.outcome_json(outcome)}
                    for label, outcome in outcomes
                ]
            }
        )
    return max(outcome.code for _, outcome in outcomes)


def _named(session: PreparedRun, name: str) -> PreparedRun:
    """The same session under another run name, so that each combination has links of its own."""
    return dc.replace(session, composed=dc.replace(session.composed, name=name))


def _compare(outcomes: Sequence[tuple[str, Outcome]], console: Console) -> None:
    """One row a combination; columns are the metrics in which they differ."""
    flat = [
        {
            f"{step}.{metric}": value
            for step, result in outcome.results.items()
            for metric, value in result.metrics.items()
        }
        for _, outcome in outcomes
    ]
    names = [
        name
        for name in dict.fromkeys(name for row in flat for name in row)
        if len({str(row.get(name)) for row in flat}) > 1
    ][-6:]
    rows = [
        (
            label,
            "failed" if outcome.error else "ok",
            format_seconds(sum(r.seconds for r in outcome.results.values())),
            *(format_number(row.get(name, "")) for name in names),
        )
        for (label, outcome), row in zip(outcomes, flat)
    ]
    console.table("comparison", ("run", "state", "time", *names), rows)
