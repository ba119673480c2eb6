"""``llmstages inspect STEP``: what a step trains on, before it trains: tokens, mask, chat template, gates."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.core.stage import Artifact, Context
from llmstages.data.dialogues import Prepared
from llmstages.pipeline import prepare, sources
from llmstages.pipeline.plan import Planned, Step
from llmstages.train import checks

MOST = 600  # tokens of a row that are shown
ON, OFF, CONTROL = "bold green", "grey50", "magenta"


def main(args: argparse.Namespace) -> int:
    """Print gates and rows, and write the page."""
    from rich.console import Console

    made = prepare.prepare([*args.overrides, f"only={args.step}"])
    plan = made.find(args.step)
    if not hasattr(plan.step.stage, "prepare"):
        others = [p.step.name for p in made.planned if hasattr(p.step.stage, "prepare")]
        raise StageError(
            f"step {args.step!r} ({plan.step.uses}) trains on no rows that could be shown"
            + (f"; these do: {', '.join(others)}" if others else "")
        )
    console = Console(
        highlight=False,
        soft_wrap=not args.html,
        record=bool(args.html),
        width=160 if args.html else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in ("out", "work"):
            (Path(folder) / name).mkdir()
        context = Context(
            args.step,
            Path(folder) / "out",
            Path(folder) / "work",
            dict(_inputs(plan, made, args.overrides)),
            cache=made.store.cache,
            say=lambda line: console.print(f"  {line}", style="dim", markup=False),
        )
        console.print(f"{args.step}  {plan.step.uses}", style="bold", markup=False)
        prepared = plan.step.stage().prepare(plan.step.config, context)
    allow = [
        name.replace(" ", "_") for name in getattr(plan.step.config, "allow_failed_checks", ())
    ]
    _head(prepared, allow, console)
    if args.template:
        console.print(
            prepared.tokenizer.chat_template or "the tokenizer has no chat template", markup=False
        )
        console.print()
    for index in _chosen(prepared, args):
        console.print(_row(prepared, index, console.color_system is not None or bool(args.html)))
        console.print()
    blocked = [g for g in prepared.gates if not g["passed"] and checks.key(g) not in allow]
    again = " ".join(map(shlex.quote, [f"only={args.step}", *args.overrides]))
    console.print(
        f"{len(blocked)} gates would stop this step; to train all the same: {args.step}.allow=[{','.join(map(checks.key, blocked))}]"
        if blocked
        else f"next    llmstages run {again}",
        style="bold red" if blocked else "bold",
        markup=False,
    )
    if args.html:
        console.save_html(args.html)
        print(f"page    {Path(args.html).resolve()}")
    return 0


def _inputs(
    plan: Planned, made: prepare.PreparedRun, overrides: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    """The step's inputs as artifacts; StageError where one is not made yet."""
    planned = {p.step: p for p in made.planned}

    def artifact(one: Any) -> Artifact:
        if not isinstance(one, Step):
            return sources.fetch(one)
        if planned[one].state != "reused":
            raise StageError(
                f"step {plan.step.name!r} reads from {one.name!r}, which is not made yet ({planned[one].why}). "
                f"Make it first: llmstages run {' '.join(map(shlex.quote, [f'only={one.name}', *overrides]))}"
            )
        return Artifact(
            one.name,
            one.kind,
            made.store.folder(planned[one].key).resolve(),
            planned[one].fingerprint,
        )

    for name, value in plan.step.inputs.items():
        yield (
            name,
            tuple(map(artifact, value)) if isinstance(value, tuple) else value and artifact(value),
        )


def _head(prepared: Prepared, allow: Any, console: Any) -> None:
    """Counts, template and gates."""
    tokens, on = (
        sum(len(row.ids) for row in prepared.rows),
        sum(sum(row.supervised) for row in prepared.rows),
    )
    counts = ", ".join(f"{name} {count:,}" for name, count in prepared.facts.items())
    console.print(
        f"{counts}; {tokens:,} tokens in {len(prepared.rows):,} rows, {on:,} of them under loss ({on / max(tokens, 1):.1%}); "
        f"longest row {max((len(row.ids) for row in prepared.rows), default=0)}",
        markup=False,
    )
    if prepared.new_tokens:
        console.print(
            f"control tokens the model does not know yet: {' '.join(prepared.new_tokens)}",
            markup=False,
        )
    width = max(len(g["gate"]) for g in prepared.gates)
    console.print(f"{'gates':8}{'':{width}}  {'value':>9}  {'limit':>9}", style="bold")
    for g in prepared.gates:
        state = "ok" if g["passed"] else "allowed" if checks.key(g) in allow else "STOPS"
        console.print(
            f"{state:8}{g['gate']:{width}}  {g['value']:>9.4g}  {g['limit']:>9.4g}",
            style="" if g["passed"] else "bold red",
            markup=False,
        )
        if not g["passed"]:
            console.print(
                "".join(f"{'':8}{line}\n" for line in (", ".join(g["rows"]), g["cure"]) if line),
                end="",
                markup=False,
            )
    console.print()


def _chosen(prepared: Prepared, args: argparse.Namespace) -> list[int]:
    """Rows that were asked for, else some spread over all."""
    from llmstages.text import chat_format

    every: Any = range(len(prepared.rows))
    if args.row:
        for name in args.row:
            if name not in prepared.names:
                raise StageError(
                    f"there is no row {name!r} in step {args.step!r}.{near(name, prepared.names)} Rows are named like {prepared.names[0] if prepared.names else '-'}"
                )
        return [prepared.names.index(name) for name in args.row]
    if args.find:
        every = [
            i
            for i in every
            if args.find in chat_format.decode(prepared.tokenizer, prepared.rows[i].ids)
        ]
        if not every:
            raise StageError(f"no row of step {args.step!r} holds {args.find!r}")
    count = max(args.count, 0)
    return [every[i * len(every) // count] for i in range(min(count, len(every)))]


def _row(prepared: Prepared, index: int, colour: bool) -> Any:
    """One row: what the loss sees stands out; without colour it stands between « and »."""
    from rich.text import Text

    from llmstages.cli.commands.tokens import seen
    from llmstages.text.token_view import view_tokens

    row = prepared.rows[index]
    out = Text(
        f"{prepared.names[index]}  {len(row.ids)} tokens, {sum(row.supervised)} under loss ",
        style="bold",
    )
    out.append(
        "(green: the loss sees it)\n" if colour else "(« »: the loss sees it)\n",
        style="not bold dim",
    )
    before = False
    for piece, on in zip(
        view_tokens(prepared.tokenizer, row.ids[:MOST]), row.supervised, strict=False
    ):
        if on != before and not colour:
            out.append("«" if on else "»")
        before = on
        text = seen(piece)
        out.append(
            text,
            style=f"not bold {CONTROL}{' underline' if on else ''}"
            if piece.control
            else ON
            if on
            else f"not bold {OFF}",
        )
    if before and not colour:
        out.append("»")
    if len(row.ids) > MOST:
        out.append(f" ... {len(row.ids) - MOST} more tokens", style="dim")
    return out
