"""``llmstages tokens``: how tokenizers cut a text. Ids, bytes and boundaries, several tokenizers side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.pipeline import history
from llmstages.text.encode import replace_surrogates
from llmstages.text.token_view import TokenView, view_tokens

MOST = 400  # rows of the table
COLOURS = (
    "on blue",
    "on dark_green",
    "on dark_magenta",
    "on dark_cyan",
    "on grey37",
    "on dark_red",
)


def main(args: argparse.Namespace) -> int:
    """Print the tokens of the text under each tokenizer."""
    from rich.console import Console

    text = (
        replace_surrogates(sys.stdin.read().removesuffix("\n")) if args.text == "-" else args.text
    )
    if not text:
        raise StageError(
            'there is no text to cut; write llmstages tokens "some text", or - to read standard input'
        )
    given = args.tokenizer or []
    made = [(name, load(name)) for name in ([given] if isinstance(given, str) else given)] or [
        default()
    ]
    cut = [(name, view_tokens(tokenizer, encode(tokenizer, text))) for name, tokenizer in made]
    console = Console(highlight=False, soft_wrap=True)
    size = len(text.encode())
    for name, found in cut:
        console.print(
            f"{name}: {len(found)} tokens for {size} bytes, {size / max(len(found), 1):.2f} bytes a token",
            style="bold",
            markup=False,
        )
        console.print(coloured(found, console.color_system is not None))
        console.print()
    console.print(table(cut))
    if (longest := max(len(found) for _, found in cut)) > MOST:
        console.print(f"the table shows the first {MOST} of {longest} tokens", style="dim")
    return 0


def load(given: str) -> Any:
    """A tokenizer by step, folder or hub address."""
    from transformers import AutoTokenizer

    made = history.find(given, history.last_run(), "tokenizer")
    if not (made.path / "tokenizer_config.json").exists():
        raise StageError(
            f"{given} holds no tokenizer: there is no tokenizer_config.json in {made.path}"
        )
    return AutoTokenizer.from_pretrained(made.path)


def default() -> tuple[str, Any]:
    """The tokenizer of the last run."""
    last = history.last_run()
    found = last.of_kind("tokenizer") or last.of_kind("model")
    if not found:
        raise StageError(
            f"there is no tokenizer in {last.where} yet. Run `llmstages run only=tokenizer`, or name one: "
            "--tokenizer FOLDER or --tokenizer hub:ORG/NAME@REVISION"
        )
    return found[-1].name, load(found[-1].name)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Ids as in training: no text becomes a control token."""
    from llmstages.text import chat_format

    return chat_format.encode_texts(tokenizer, [text])[0]


def seen(piece: TokenView) -> str:
    """The text of a token with white space and broken characters visible."""
    text = piece.text.replace("\n", "↵").replace("\t", "⇥").replace("\ufffd", "▯")
    return "".join(c if c.isprintable() else "▯" for c in text)


def coloured(found: Sequence[TokenView], colour: bool) -> Any:
    """A line of tokens, told apart by background, or by bars where there is no colour."""
    from rich.text import Text

    out = Text()
    for index, piece in enumerate(found):
        style = (
            "bold magenta reverse" if piece.control else f"white {COLOURS[index % len(COLOURS)]}"
        )
        out.append(seen(piece), style=style)
        if not colour:
            out.append("|")
    return out


def table(cut: Sequence[tuple[str, Sequence[TokenView]]]) -> Any:
    """One row a token, three columns a tokenizer: text, id, bytes."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    grid.add_column("#", justify="right", style="dim")
    for name, _ in cut:
        grid.add_column(Text(name if len(cut) > 1 else "token"))
        grid.add_column("id", justify="right")
        grid.add_column("bytes", style="dim")
    for index in range(min(MOST, max(len(found) for _, found in cut))):
        cells: list[Any] = [str(index)]
        for _, found in cut:
            piece = found[index] if index < len(found) else None
            cells += (
                [Text(f"'{seen(piece)}'"), str(piece.id), piece.hex or "control"]
                if piece
                else ["", "", ""]
            )
        grid.add_row(*cells)
    return grid
