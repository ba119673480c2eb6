"""``llmstages tokens``: how tokenizers split a text.

It shows ids, bytes and boundaries, of several tokenizers side by side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.pipeline import history
from llmstages.text.encode import replace_surrogates
from llmstages.text.token_view import TokenView, view_tokens

MAX_ROWS = 400  # of the table
COLORS = (
    "on blue",
    "on dark_green",
    "on dark_magenta",
    "on dark_cyan",
    "on grey37",
    "on dark_red",
)

Columns = Sequence[tuple[str, Sequence[TokenView]]]  # name of a tokenizer, its tokens


def main(args: argparse.Namespace) -> int:
    """Print the tokens of the text under each tokenizer."""
    from rich.console import Console

    text = args.text
    if text == "-":
        text = replace_surrogates(sys.stdin.read().removesuffix("\n"))
    if not text:
        raise StageError(
            'there is no text to split; write llmstages tokens "some text", '
            "or - to read standard input"
        )
    tokenizers = [(name, load_tokenizer(name)) for name in args.tokenizer or []]
    if not tokenizers:
        tokenizers = [default_tokenizer()]
    columns = []
    for name, tokenizer in tokenizers:
        columns.append((name, view_tokens(tokenizer, encode(tokenizer, text))))
    # rich would color numbers and break lines of its own accord.
    console = Console(highlight=False, soft_wrap=True)
    size = len(text.encode())
    for name, tokens in columns:
        per_token = size / max(len(tokens), 1)
        console.print(
            f"{name}: {len(tokens)} tokens for {size} bytes, {per_token:.2f} bytes per token",
            style="bold",
            markup=False,
        )
        console.print(colored_tokens(tokens, console.color_system is not None))
        console.print()
    console.print(table(columns))
    longest = max(len(tokens) for _, tokens in columns)
    if longest > MAX_ROWS:
        console.print(f"the table shows the first {MAX_ROWS} of {longest} tokens", style="dim")
    return 0


def load_tokenizer(given: str) -> Any:
    """A tokenizer by step, folder or hub address."""
    from transformers import AutoTokenizer

    artifact = history.find(given, history.last_run(), "tokenizer")
    if not (artifact.path / "tokenizer_config.json").exists():
        raise StageError(
            f"{given} contains no tokenizer: there is no tokenizer_config.json in {artifact.path}"
        )
    return AutoTokenizer.from_pretrained(artifact.path)


def default_tokenizer() -> tuple[str, Any]:
    """Name and tokenizer of the last run; the tokenizer of its last model if it made none."""
    run = history.last_run()
    steps = run.of_kind("tokenizer") or run.of_kind("model")
    if not steps:
        raise StageError(
            f"there is no tokenizer in {run.where} yet. Run `llmstages run only=tokenizer`, or "
            "name one: --tokenizer FOLDER or --tokenizer hub:ORG/NAME@REVISION"
        )
    name = steps[-1].name
    return name, load_tokenizer(name)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Ids as in training: no text becomes a control token."""
    from llmstages.text import chat_format

    return chat_format.encode_texts(tokenizer, [text])[0]


def visible_text(token: TokenView) -> str:
    """The text of a token with white space and broken characters visible."""
    text = token.text.replace("\n", "↵").replace("\t", "⇥").replace("\ufffd", "▯")
    return "".join(c if c.isprintable() else "▯" for c in text)


def colored_tokens(tokens: Sequence[TokenView], color: bool) -> Any:
    """Tokens on one line, separated by background colors, or by bars where there is no color."""
    from rich.text import Text

    line = Text()
    for index, token in enumerate(tokens):
        style = f"white {COLORS[index % len(COLORS)]}"
        if token.control:
            style = "bold magenta reverse"
        line.append(visible_text(token), style=style)
        if not color:
            line.append("|")
    return line


def table(columns: Columns) -> Any:
    """One token per row; three columns per tokenizer: text, id, bytes."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    grid.add_column("#", justify="right", style="dim")
    for name, _ in columns:
        grid.add_column(Text(name if len(columns) > 1 else "token"))
        grid.add_column("id", justify="right")
        grid.add_column("bytes", style="dim")
    longest = max(len(tokens) for _, tokens in columns)
    for index in range(min(MAX_ROWS, longest)):
        cells: list[Any] = [str(index)]
        for _, tokens in columns:
            cells += _cells(tokens[index]) if index < len(tokens) else ["", "", ""]
        grid.add_row(*cells)
    return grid


def _cells(token: TokenView) -> list[Any]:
    from rich.text import Text

    return [Text(f"'{visible_text(token)}'"), str(token.id), token.hex or "control"]
