"""``llmstages inspect STEP``: what a step trains on, before it trains.

Prints counts, the checks before the first update, some rows token by token with their loss mask,
and on request the chat template. Nothing is trained, and nothing is written into the store.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.core.stage import Artifact, Context
from llmstages.data.dialogues import Prepared
from llmstages.pipeline import prepare, sources
from llmstages.pipeline.plan import Planned, Source, Step
from llmstages.train import checks
from llmstages.train.checks import Check

MAX_TOKENS = 600  # of a row that are shown
PAGE_WIDTH = 160  # characters of a line in the HTML page
SUPERVISED, READ_ONLY, CONTROL = "bold green", "not bold grey50", "not bold magenta"


def main(args: argparse.Namespace) -> int:
    """Print checks and rows of a step, and write them as a page if asked to."""
    run = prepare.prepare([*args.overrides, f"only={args.step}"])
    plan = run.find(args.step)
    _require_rows(plan, run)
    inputs = _inputs(plan, run, args.overrides)
    console = _console(bool(args.html))
    console.print(f"{args.step}  {plan.step.uses}", style="bold", markup=False)
    prepared = _prepare(plan, inputs, run.store.cache, console)
    allowed = list(getattr(plan.step.config, "allow_failed_checks", ()))
    _print_counts(prepared, console)
    _print_checks(prepared.checks, allowed, console)
    if args.template:
        template = prepared.tokenizer.chat_template or "the tokenizer has no chat template"
        console.print(template, markup=False)
        console.print()
    # Without colors (in a file, or with NO_COLOR) marks in the text show the loss mask.
    colored = console.color_system is not None or bool(args.html)
    for index in _chosen_rows(prepared, args):
        console.print(_render_row(prepared, index, colored))
        console.print()
    _print_next(prepared.checks, allowed, args, console)
    if args.html:
        console.save_html(args.html)
        print(f"page    {Path(args.html).resolve()}")
    return 0


def _require_rows(plan: Planned, run: prepare.PreparedRun) -> None:
    if hasattr(plan.step.stage, "prepare"):
        return
    message = f"step {plan.step.name!r} ({plan.step.uses}) trains on no rows that could be shown"
    others = [other.step.name for other in run.planned if hasattr(other.step.stage, "prepare")]
    if others:
        message += f"; these steps do: {', '.join(others)}"
    raise StageError(message)


def _console(page: bool) -> Any:
    """A console; for a page it records what it prints, in lines of a fixed width."""
    from rich.console import Console

    if page:
        return Console(highlight=False, record=True, width=PAGE_WIDTH)
    return Console(highlight=False, soft_wrap=True)


def _inputs(
    plan: Planned, run: prepare.PreparedRun, overrides: Sequence[str]
) -> dict[str, Artifact | tuple[Artifact, ...] | None]:
    """The inputs of the step as artifacts; StageError if one has not been made yet."""
    planned = {other.step: other for other in run.planned}

    def artifact(source: Step | Source) -> Artifact:
        if not isinstance(source, Step):
            return sources.fetch(source)
        # Making it here would start a training; the user decides when.
        made = planned[source]
        if made.state != "reused":
            command = shlex.join(["llmstages", "run", f"only={source.name}", *overrides])
            raise StageError(
                f"step {plan.step.name!r} reads from {source.name!r}, which is not made yet "
                f"({made.why}). Make it first: {command}"
            )
        folder = run.store.folder(made.key).resolve()
        return Artifact(source.name, source.kind, folder, made.fingerprint)

    inputs: dict[str, Artifact | tuple[Artifact, ...] | None] = {}
    for name, value in plan.step.inputs.items():
        if value is None:
            inputs[name] = None
        elif isinstance(value, tuple):
            inputs[name] = tuple(artifact(source) for source in value)
        else:
            inputs[name] = artifact(value)
    return inputs


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


def _print_counts(prepared: Prepared, console: Any) -> None:
    sizes = [len(row.ids) for row in prepared.rows]
    tokens = sum(sizes)
    supervised = sum(sum(row.supervised) for row in prepared.rows)
    counts = ", ".join(f"{name} {count:,}" for name, count in prepared.facts.items())
    console.print(
        f"{counts}; {tokens:,} tokens in {len(sizes):,} rows, {supervised:,} of them under loss "
        f"({supervised / max(tokens, 1):.1%}); longest row {max(sizes, default=0)}",
        markup=False,
    )
    if prepared.new_tokens:
        names = " ".join(prepared.new_tokens)
        console.print(f"control tokens the model does not know yet: {names}", markup=False)


def _print_checks(results: Sequence[Check], allowed: Sequence[str], console: Any) -> None:
    """A table of the checks; those that failed with their rows and what to do."""
    width = max(len(check.id) for check in results)
    console.print(f"{'checks':8}{'':{width}}  {'value':>9}  {'limit':>9}", style="bold")
    for check in results:
        console.print(
            f"{_state(check, allowed):8}{check.id:{width}}  "
            f"{check.value:>9.4g}  {check.limit:>9.4g}  {check.title}",
            style="" if check.passed else "bold red",
            markup=False,
        )
        if check.passed:
            continue
        for line in (", ".join(check.rows), check.fix):
            if line:
                console.print(f"{'':8}{line}", markup=False)
    console.print()


def _state(check: Check, allowed: Sequence[str]) -> str:
    if check.passed:
        return "ok"
    if check.id in allowed:
        return "allowed"
    return "STOPS"


def _chosen_rows(prepared: Prepared, args: argparse.Namespace) -> list[int]:
    """Indices of the rows that were asked for by name; else of some, spread over all that match."""
    if args.row:
        return [_row_index(prepared, name, args.step) for name in args.row]
    candidates = list(range(len(prepared.rows)))
    if args.find:
        candidates = _rows_with_text(prepared, args.find)
        if not candidates:
            raise StageError(f"no row of step {args.step!r} contains {args.find!r}")
    # Spread over all rows, because neighbors often come from the same source.
    count = max(args.count, 0)
    shown = min(count, len(candidates))
    return [candidates[position * len(candidates) // count] for position in range(shown)]


def _row_index(prepared: Prepared, name: str, step: str) -> int:
    if name not in prepared.names:
        examples = ", ".join(prepared.names[:1]) or "-"
        raise StageError(
            f"there is no row {name!r} in step {step!r}.{near(name, prepared.names)} "
            f"Rows have names such as {examples}"
        )
    return prepared.names.index(name)


def _rows_with_text(prepared: Prepared, text: str) -> list[int]:
    from llmstages.text import chat_format

    found = []
    for index, row in enumerate(prepared.rows):
        if text in chat_format.decode(prepared.tokenizer, row.ids):
            found.append(index)
    return found


def _render_row(prepared: Prepared, index: int, colored: bool) -> Any:
    """One row as rich text: tokens under loss are green; without colors they are in « and »."""
    from rich.text import Text

    from llmstages.cli.commands.tokens import visible_text
    from llmstages.text.token_view import view_tokens

    row = prepared.rows[index]
    supervised = sum(row.supervised)
    title = f"{prepared.names[index]}  {len(row.ids)} tokens, {supervised} under loss "
    legend = "(green: under loss)\n" if colored else "(« »: under loss)\n"
    out = Text(title, style="bold")
    out.append(legend, style="not bold dim")
    # Only the tokens that are shown are decoded: documents can be long.
    tokens = view_tokens(prepared.tokenizer, row.ids[:MAX_TOKENS])
    inside = False
    for token, under_loss in zip(tokens, row.supervised, strict=False):
        if under_loss != inside and not colored:
            out.append("«" if under_loss else "»")
        inside = under_loss
        out.append(visible_text(token), style=_token_style(token.control, under_loss))
    if inside and not colored:
        out.append("»")
    if len(row.ids) > MAX_TOKENS:
        out.append(f" ... {len(row.ids) - MAX_TOKENS} more tokens", style="dim")
    return out


def _token_style(control: bool, under_loss: bool) -> str:
    if control and under_loss:
        return f"{CONTROL} underline"
    if control:
        return CONTROL
    if under_loss:
        return SUPERVISED
    return READ_ONLY


def _print_next(
    results: Sequence[Check], allowed: Sequence[str], args: argparse.Namespace, console: Any
) -> None:
    """The command that trains, or what stands in its way."""
    blocking = [check for check in results if not check.passed and check.id not in allowed]
    if blocking:
        override = checks.allowing(blocking, args.step)
        line = (
            f"{len(blocking)} failed checks would stop this step; to train all the same: {override}"
        )
        console.print(line, style="bold red", markup=False)
        return
    command = shlex.join(["llmstages", "run", f"only={args.step}", *args.overrides])
    console.print(f"next    {command}", style="bold", markup=False)
