"""``llmstages inspect STEP``: what a step trains on, before it trains.

Prints counts, the checks before the first update, some rows token by token with their loss mask,
and on request the chat template. Nothing is trained. Steps before it that only read files are made;
what else is missing and may be missing is left out with a line.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.cli import prepared_view
from llmstages.core.artifacts import parse_input
from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data.dialogues import Prepared
from llmstages.pipeline import overrides, prepare, sources
from llmstages.pipeline.plan import Planned, Source, Step
from llmstages.pipeline.runner import Run, execute
from llmstages.train import checks
from llmstages.train.checks import Check


def main(args: argparse.Namespace) -> int:
    """Print checks and rows of a step, and write them as a page if asked to."""
    inspect(args)
    return 0


def inspect(args: argparse.Namespace) -> list[Check]:
    """Print what a step trains on; returns the failed checks that would stop it.

    Args:
        args: step, overrides, row, find, count, template, html, as on the command line.
    """
    console = prepared_view.make_console(bool(args.html))
    run = prepare.prepare_past(
        args.overrides, args.step, lambda line: console.print(line, style="dim", markup=False)
    )
    _require_rows(run.find(args.step), run)
    if _make_cheap_steps(run.find(args.step), run):
        run = prepare.prepare(run.overrides, run.composed.name)
    plan = run.find(args.step)
    inputs = _Inputs(run, console).of(plan)
    console.print(f"{args.step}  {plan.step.uses}", style="bold", markup=False)
    prepared = _prepare(plan, inputs, run.store.cache, console)
    allowed = list(getattr(plan.step.config, "allow_failed_checks", ()))
    prepared_view.print_counts(prepared, console)
    prepared_view.print_checks(prepared.checks, allowed, console)
    if args.template:
        template = prepared.tokenizer.chat_template or "the tokenizer has no chat template"
        console.print(template, markup=False)
        console.print()
    # Without colors (in a file, or with NO_COLOR) marks in the text show the loss mask.
    colored = console.color_system is not None or bool(args.html)
    for index in prepared_view.chosen_rows(prepared, args):
        console.print(prepared_view.render_row(prepared, index, colored))
        console.print()
    blocking = [check for check in prepared.checks if not check.passed and check.id not in allowed]
    _print_next(blocking, run, args.step, console)
    if args.html:
        console.save_html(args.html)
        print(f"page    {Path(args.html).resolve()}")
    return blocking


def _require_rows(plan: Planned, run: prepare.PreparedRun) -> None:
    if hasattr(plan.step.stage, "prepare"):
        return
    message = f"step {plan.step.name!r} ({plan.step.uses}) trains on no rows that could be shown"
    others = [other.step.name for other in run.planned if hasattr(other.step.stage, "prepare")]
    if others:
        message += f"; these steps do: {', '.join(others)}"
    raise StageError(message)


def _make_cheap_steps(plan: Planned, run: prepare.PreparedRun) -> bool:
    """Make the inputs of a step that only read files; returns whether there were any."""
    needed = {source for _, source in plan.step.sources() if isinstance(source, Step)}
    cheap = [
        other
        for other in run.planned
        if other.step in needed and other.state != "reused" and not other.step.stage.inputs
    ]
    if not cheap:
        return False
    outcome = execute(cheap, Run(run.store, console=Console(to_stderr=True)))
    if outcome.error:
        raise StageError(outcome.error)
    return True


class _Inputs:
    """The inputs of a step as artifacts, as far as they are made."""

    def __init__(self, run: prepare.PreparedRun, console: Any) -> None:
        self._run = run
        self._console = console
        self._planned = {other.step: other for other in run.planned}

    def of(self, plan: Planned) -> dict[str, Artifact | tuple[Artifact, ...] | None]:
        """Input name -> artifacts. Raises StageError if a required one has not been made yet."""
        inputs: dict[str, Artifact | tuple[Artifact, ...] | None] = {}
        for name, value in plan.step.inputs.items():
            optional = parse_input(plan.step.stage.inputs[name]).optional
            if value is None:
                inputs[name] = None
            elif isinstance(value, tuple):
                artifacts = [self._artifact(plan, name, source, optional) for source in value]
                inputs[name] = tuple(artifact for artifact in artifacts if artifact)
            else:
                inputs[name] = self._artifact(plan, name, value, optional)
        return inputs

    def _artifact(
        self, plan: Planned, name: str, source: Step | Source, optional: bool
    ) -> Artifact | None:
        if not isinstance(source, Step):
            return sources.fetch(source)
        made = self._planned[source]
        if made.state == "reused":
            folder = self._run.store.folder(made.key).resolve()
            return Artifact(source.name, source.kind, folder, made.fingerprint)
        if optional:
            self._console.print(
                f"  {source.name!r} is not made yet, so its part of {name} is left out here",
                style="dim",
                markup=False,
            )
            return None
        # Making it here would start a training; the user decides when.
        command = overrides.command("run", self._run.overrides, f"only={source.name}")
        raise StageError(
            f"step {plan.step.name!r} reads from {source.name!r}, which is not made yet "
            f"({made.why}). Make it first: {command}"
        )


def _prepare(plan: Planned, inputs: Mapping[str, Any], cache: Any, console: Any) -> Prepared:
    """What the step would train on; its output folder exists for the moment only."""
    # A stage may write while it prepares, and must not write into the store.
    with tempfile.TemporaryDirectory() as folder:
        out, work = Path(folder) / "out", Path(folder) / "work"
        out.mkdir()
        work.mkdir()
        context = Context(
            plan.step.name,
            out,
            work,
            dict(inputs),
            cache=cache,
            say=lambda line: console.print(f"  {line}", style="dim", markup=False),
        )
        return plan.step.stage().prepare(plan.step.config, context)


def _print_next(
    blocking: Sequence[Check], run: prepare.PreparedRun, step: str, console: Any
) -> None:
    """The command that trains, or what stands in its way."""
    if blocking:
        override = checks.allowing(blocking, step)
        line = (
            f"{len(blocking)} failed checks would stop this step; to train all the same: {override}"
        )
        console.print(line, style="bold red", markup=False)
        return
    command = overrides.command("run", run.overrides, f"only={step}")
    console.print(f"next    {command}", style="bold", markup=False)
