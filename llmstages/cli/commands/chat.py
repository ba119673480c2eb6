"""``llmstages chat``: talk to a model of the last run, token by token, with its tools run live.

Works in a pipe too: every line of standard input is answered in turn.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from llmstages.cli.chat_session import Talk, open_talk
from llmstages.core.errors import StageError
from llmstages.pipeline import history
from llmstages.pipeline.history import Last, Made

HELP = """/tokens         the last exchange token by token, control tokens visible
/reset          forget what was said
/system TEXT    a system message; without TEXT: none
/temperature X  0 always says the likeliest thing
/model STEP     talk to another model
/tools          what it can call
/help           this
/quit           leave (also Ctrl-D); Ctrl-C stops a reply"""


def main(args: argparse.Namespace) -> int:
    """Choose the model, greet, and talk until the input ends."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    last = history.last_run(args.overrides)
    made = history.find(args.step, last, "model") if args.step else default(last)
    Terminal(last, args.history or None).run(made)
    return 0


def default(last: Last) -> Made:
    """The step ``rl`` if it made a model, else the model that was made last."""
    models = last.of_kind("model")
    if not models:
        raise StageError(
            f"there is no model in {last.where} yet. Run `llmstages run` in this folder, name another store: store=FOLDER, "
            "or talk to a model of the hub: llmstages chat hub:ORG/NAME@REVISION"
        )
    return next((m for m in models if m.name == "rl"), models[-1])


class Terminal:
    """What a person sees. Text of models and tools is cleaned of control characters: it could rewrite the terminal."""

    def __init__(self, last: Last, history: bool | None) -> None:
        from rich.console import Console

        self.last, self.history = last, history
        self.console = Console(highlight=False, soft_wrap=True)
        self.talk: Talk | None = None
        self.fresh = True  # whether the cursor is at the start of a line

    def run(self, made: Made) -> None:
        """Answer line after line."""
        self.load(made)
        for line in self.lines():
            text = line.strip()
            if not text:
                continue
            try:
                if text.startswith("/"):
                    if not self.command(text):
                        return
                else:
                    self.reply(text)
            except StageError as error:
                self.line(f"error: {error}", "red")

    def load(self, made: Made) -> None:
        """Open a model and say what it is."""
        from transformers.utils import logging as library

        library.disable_progress_bar()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        self.talk = talk = open_talk(made, self.history)
        size = sum(p.numel() for p in talk.model.parameters())
        tools = f", tools {' and '.join(talk.tools)}" if talk.tools else ""
        self.line(
            f"{talk.name}: {size / 1e6:.1f} million parameters, context of {talk.context} tokens{tools}. /help lists the commands",
            "bold",
        )
        if talk.base:
            self.line(
                "A base model, never trained on chat: it continues what you write as a document, at temperature 0.8",
                "dim",
            )
        elif not talk.history:
            self.line(
                "A small context: each question is asked on its own, without what was said before (--history keeps it)",
                "dim",
            )
        elif talk.context <= 1024:
            self.line(
                "Small models of the story were trained on single exchanges; expect little memory",
                "dim",
            )
        if sys.stdin.isatty() and (asked := [] if talk.base else examples(self.last)):
            self.line("For example:", "dim")
            for question in asked:
                self.line(f"  {question}", "dim")

    def lines(self) -> Iterator[str]:
        """Lines of the user, until Ctrl-D or the end of a pipe."""
        if not sys.stdin.isatty():
            for line in sys.stdin:
                if line.strip():
                    self.line(f"> {clean(line.strip())}", "dim")
                yield line
            return
        import readline  # noqa: F401  (editing and history of input)

        while True:
            try:
                yield input("> ")
            except EOFError:
                self.line("")
                return
            except KeyboardInterrupt:
                self.line("\n(Ctrl-D leaves)", "dim")

    def reply(self, text: str) -> None:
        """One answer, streamed. Ctrl-C stops it and keeps what was said."""
        try:
            self.talk.say(text, self.show)
        except KeyboardInterrupt:
            self.line("\n(stopped)", "dim")
        if not self.fresh:
            self.line("")

    def show(self, what: str, text: str) -> None:
        """A bit of the reply."""
        text = clean(text)
        if what == "text":
            self.console.print(text, end="", markup=False)
            self.fresh = False if text else self.fresh
        elif what == "call":
            self.line("" if not self.fresh else None)
            self.console.print(f"  {text}: ", end="", style="cyan dim", markup=False)
            self.fresh = False
        elif what == "argument":
            self.console.print(text, end="", style="cyan dim", markup=False)
        else:
            if not self.fresh:
                self.line("")
            self.line(
                f"  {'result: ' if what == 'result' else '('}{text}{'' if what == 'result' else ')'}",
                "dim",
            )

    def line(self, text: str | None, style: str | None = None) -> None:
        """A whole line; None for nothing."""
        if text is not None:
            self.console.print(text, style=style, markup=False)
            self.fresh = True

    def command(self, text: str) -> bool:
        """Do what a /command says; False to leave."""
        name, _, rest = text.partition(" ")
        rest, talk = rest.strip(), self.talk
        if name in ("/quit", "/exit"):
            return False
        if name == "/tokens":
            self.tokens()
        elif name == "/reset":
            talk.turns, talk.last = [], []
            self.line("forgotten", "dim")
        elif name == "/system":
            talk.system = rest
            self.line(f"system message: {rest}" if rest else "no system message", "dim")
        elif name == "/temperature":
            self.temperature(rest)
        elif name == "/model":
            self.load(history.find(rest, self.last, "model") if rest else default(self.last))
        elif name == "/tools":
            self.tools()
        elif name == "/help":
            self.line(HELP)
        else:
            self.line(f"there is no command {name}\n{HELP}")
        return True

    def temperature(self, text: str) -> None:
        """Set how boldly it samples."""
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 10:
            self.line(
                f"/temperature takes a number from 0 to 10, not {text!r}; it is {self.talk.temperature:g}"
            )
            return
        self.talk.temperature = value
        self.line(f"temperature {value:g}", "dim")

    def tools(self) -> None:
        """What the model can call."""
        for name, tool in self.talk.tools.items():
            self.line(
                f"{name}: {(type(tool).__doc__ or '').strip().splitlines()[0] if type(tool).__doc__ else ''}"
            )
        if not self.talk.tools:
            self.line("none: no step in the making of this model taught it tools")

    def tokens(self) -> None:
        """The last exchange token by token."""
        from llmstages.cli.commands.tokens import coloured
        from llmstages.text.token_view import view_tokens

        if not self.talk.last:
            self.line("nothing was said yet")
            return
        self.console.print(
            coloured(
                view_tokens(self.talk.tokenizer, self.talk.last),
                self.console.color_system is not None,
            )
        )
        self.line(f"{len(self.talk.last)} of {self.talk.context} tokens", "dim")


def clean(text: str) -> str:
    """Without control characters, escape sequences above all."""
    return "".join(c for c in text if c in "\n\t" or (c.isprintable() or c == "\u200d"))


def examples(last: Last, most: int = 3) -> list[str]:
    """Questions of the run, of different tasks."""
    from llmstages.data import tables

    found: dict[str, str] = {}
    for made in last.of_kind("problems"):
        mine: dict[str, str] = {}
        for row in tables.load(made.path / "data") if (made.path / "data").exists() else ():
            row: dict[str, Any]
            if row.get("style", "chat") == "chat" and row.get("role", "test") == "test":
                mine.setdefault(str(row.get("task") or ""), str(row["prompt"][-1]["content"]))
        found = max(found, mine, key=len)
    questions = list(found.values())
    return (
        [clean(questions[round(i * (len(questions) - 1) / (most - 1))]) for i in range(most)]
        if len(questions) > most
        else list(map(clean, questions))
    )
