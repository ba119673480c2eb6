"""``llmstages run``: plan, make what is missing, and report what came of it."""

from __future__ import annotations

import argparse
import dataclasses as dc
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmstages.cli import comparison, sweep_page
from llmstages.cli.comparison import SweptRun
from llmstages.core.console import Console, format_number, format_seconds
from llmstages.core.exit_codes import INTERRUPTED, REQUEUE
from llmstages.pipeline import history, prepare
from llmstages.pipeline.overrides import command
from llmstages.pipeline.prepare import PreparedRun
from llmstages.pipeline.run_config import folder_name
from llmstages.pipeline.runner import Outcome, Run, execute, refuse_other_launchers

HEADLINE_METRICS = 4  # of a step, in the table at the end


def main(args: argparse.Namespace) -> int:
    """Run one configuration, or with --multirun every combination of a sweep."""
    console = Console(to_stderr=args.json)
    if args.multirun:
        return _sweep(args, console)
    prepared = prepare.prepare(args.overrides, args.name)
    with _recorded(prepared, console):
        outcome = perform(prepared, console)
        finish(outcome, console)
    if args.json:
        prepare.print_json(prepare.outcome_json(outcome))
    return outcome.code


@contextmanager
def _recorded(prepared: PreparedRun, console: Console) -> Iterator[None]:
    """Note a run of its own, to which ``show``, ``redo`` and ``rm`` refer, and keep its log."""
    refuse_other_launchers()
    composed = prepared.composed
    keys = {plan.step.name: plan.key for plan in prepared.planned}
    history.save_invocation(composed.runs, composed.name, prepared.overrides, keys)
    with console.logging(history.run_log(composed.runs, composed.name)):
        console.note(f"{command('run', prepared.overrides)}  (process {os.getpid()})")
        yield


def perform(prepared: PreparedRun, console: Console) -> Outcome:
    """Execute a plan."""
    composed = prepared.composed
    run = Run(prepared.store, composed.name, composed.runs, composed.launch, console)
    return execute(prepared.planned, run)


def finish(outcome: Outcome, console: Console) -> None:
    """Print the steps, the claims, the path of the report, and what to do next."""
    steps = []
    for name, result in outcome.results.items():
        seconds = "" if result.state == "reused" else format_seconds(result.seconds)
        steps.append((name, result.state, seconds, headline(result.metrics)))
    console.table("steps", ("step", "state", "time", "metrics"), steps)
    claims = []
    for claim in prepare.claims(outcome):
        verdict = "MISSED"
        if claim["met"]:
            verdict = "met" if claim.get("certain") else "met*"
        value = format_number(claim["value"])
        interval = " to ".join(format_number(end) for end in claim.get("interval") or ())
        claims.append((verdict, claim["name"], value, interval, claim["target"]))
    console.table("claims", ("", "claim", "value", "95 % interval", "target"), claims)
    if any(row[0] == "met*" for row in claims):
        console.say("  * by its value: the interval reaches beyond the target, or is not known")
    report = prepare.report_path(outcome)
    if report:
        console.say(f"\nreport  {report}")
    # An error comes last, so that it is what people see.
    if outcome.error:
        if outcome.log:
            console.say(f"log     {outcome.log}")
        console.say(f"\nerror: {outcome.error}")
    elif any(artifact.kind == "model" for artifact in outcome.artifacts.values()):
        console.say("next    llmstages chat")


def headline(metrics: Mapping[str, Any]) -> str:
    """The first few metrics of a step, in the order in which the stage gave them."""
    first = list(metrics.items())[:HEADLINE_METRICS]
    return "  ".join(f"{name} {format_number(value)}" for name, value in first)


def _sweep(args: argparse.Namespace, console: Console) -> int:
    """Run every combination. What they share is made once, since the store knows it."""
    from llmstages.pipeline.compose import expand

    combinations = expand(args.overrides)
    # A mistake in the last combination should not wait for the others to run.
    prepared_runs = [prepare.prepare(overrides, args.name) for overrides in combinations]
    first = prepared_runs[0].composed
    runs: list[SweptRun] = []
    for number, overrides in enumerate(combinations, 1):
        varied = [override for override in overrides if override not in args.overrides]
        prepared = prepare.prepare(overrides, args.name)
        # Each combination has links of its own.
        without_quotes = [re.sub("[\"']", "", override) for override in varied]
        name = folder_name("+".join([prepared.composed.name, *without_quotes]))
        prepared = _renamed(prepared, name)
        with _recorded(prepared, console):
            console.say(f"\n[{number}/{len(combinations)}] {' '.join(varied) or 'as given'}")
            outcome = perform(prepared, console)
            if outcome.error:
                console.say(f"error: {outcome.error}")
        runs.append(SweptRun(varied, outcome, prepare.claims(outcome)))
        # A failure of one combination says nothing about the others; a signal means all of them.
        if outcome.code in (REQUEUE, INTERRUPTED):
            break
    comparison.print_comparison(runs, console)
    files = comparison.save(runs, Path(first.runs), first.name)
    page = files[0].with_suffix(".html")
    sweep_page.write(runs, page, f"{first.name}: {len(runs)} runs side by side")
    files.append(page)
    console.say(f"\nall metrics  {files[0]}\n             {files[1]}\npage         {page}")
    if args.json:
        ends = []
        for run in runs:
            ends.append({"overrides": run.label, **prepare.outcome_json(run.outcome)})
        compared = comparison.as_json(runs)
        summary = {name: compared[name] for name in ("over_seeds", "claims")}
        prepare.print_json({"runs": ends, **summary, "files": list(map(str, files))})
    return max(run.outcome.code for run in runs)


def _renamed(prepared: PreparedRun, name: str) -> PreparedRun:
    """The same plan under another name of the run."""
    return dc.replace(prepared, composed=dc.replace(prepared.composed, name=name))
