"""``llmstages run``: plan, make what is missing, and report what came of it."""

from __future__ import annotations

import argparse
import dataclasses as dc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from llmstages.core.console import Console, format_number, format_seconds
from llmstages.core.exit_codes import INTERRUPTED, REQUEUE
from llmstages.pipeline import history, prepare
from llmstages.pipeline.overrides import command
from llmstages.pipeline.prepare import PreparedRun
from llmstages.pipeline.runner import Outcome, Run, execute

HEADLINE_METRICS = 4  # of a step, in the table at the end
COMPARED_METRICS = 6  # columns of the comparison of a sweep

# A run of a sweep: the overrides in which it differs from the others, and what came of it
SweptRun = tuple[str, Outcome]


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
    composed = prepared.composed
    history.save_invocation(composed.runs, composed.name, prepared.overrides)
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
        verdict = "met" if claim["met"] else "MISSED"
        claims.append((verdict, claim["name"], format_number(claim["value"]), claim["target"]))
    console.table("claims", ("", "claim", "value", "target"), claims)
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
    for overrides in combinations:
        # A mistake in the last combination should not wait for the others to run.
        prepare.prepare(overrides)
    runs: list[SweptRun] = []
    for number, overrides in enumerate(combinations, 1):
        varied = [override for override in overrides if override not in args.overrides]
        label = " ".join(varied) or "as given"
        console.say(f"\n[{number}/{len(combinations)}] {label}")
        prepared = prepare.prepare(overrides, args.name)
        # Each combination has links of its own.
        suffixes = [override.replace("/", "_") for override in varied]
        prepared = _renamed(prepared, "+".join([prepared.composed.name, *suffixes]))
        with _recorded(prepared, console):
            outcome = perform(prepared, console)
        runs.append((label, outcome))
        if outcome.error:
            console.say(f"error: {outcome.error}")
        # A failure of one combination says nothing about the others; a signal means all of them.
        if outcome.code in (REQUEUE, INTERRUPTED):
            break
    _compare(runs, console)
    if args.json:
        ends = []
        for label, outcome in runs:
            ends.append({"overrides": label, **prepare.outcome_json(outcome)})
        prepare.print_json({"runs": ends})
    return max(outcome.code for _, outcome in runs)


def _renamed(prepared: PreparedRun, name: str) -> PreparedRun:
    """The same plan under another name of the run."""
    return dc.replace(prepared, composed=dc.replace(prepared.composed, name=name))


def _compare(runs: Sequence[SweptRun], console: Console) -> None:
    """Print one run per row, with the metrics in which they differ as columns."""
    metrics = [_all_metrics(outcome) for _, outcome in runs]
    names = _differing(metrics)[-COMPARED_METRICS:]
    rows = []
    for (label, outcome), values in zip(runs, metrics, strict=True):
        state = "failed" if outcome.error else "ok"
        seconds = sum(result.seconds for result in outcome.results.values())
        cells = [format_number(values.get(name, "")) for name in names]
        rows.append((label, state, format_seconds(seconds), *cells))
    console.table("comparison", ("run", "state", "time", *names), rows)


def _all_metrics(outcome: Outcome) -> dict[str, Any]:
    """STEP.METRIC -> value."""
    metrics = {}
    for step, result in outcome.results.items():
        for name, value in result.metrics.items():
            metrics[f"{step}.{name}"] = value
    return metrics


def _differing(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the metrics that are not the same in all runs."""
    names: dict[str, None] = {}  # a set that keeps the order
    for values in metrics:
        names.update(dict.fromkeys(values))
    differing = []
    for name in names:
        if len({str(values.get(name)) for values in metrics}) > 1:
            differing.append(name)
    return differing
