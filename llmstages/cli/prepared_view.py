"""What a step trains on, for people: counts, checks, rows token by token with their loss mask."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.data.dialogues import Prepared
from llmstages.train.checks import Check

MAX_TOKENS = 600  # of a row that are shown
PAGE_WIDTH = 160  # characters of a line in the HTML page
SUPERVISED, READ_ONLY, CONTROL = "bold green", "not bold grey50", "not bold magenta"


def make_console(page: bool) -> Any:
    """A console; for a page it records what it prints, in lines of a fixed width."""
    from rich.console import Console

    if page:
        return Console(highlight=False, record=True, width=PAGE_WIDTH)
    return Console(highlight=False, soft_wrap=True)


def print_counts(prepared: Prepared, console: Any) -> None:
    """Dialogues, tokens and rows."""
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


def print_checks(results: Sequence[Check], allowed: Sequence[str], console: Any) -> None:
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


def chosen_rows(prepared: Prepared, args: argparse.Namespace) -> list[int]:
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


def render_row(prepared: Prepared, index: int, colored: bool) -> Any:
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
