"""``llmstages chat``: talk to a model of the last run, token by token, with its tools run live.

It works in a pipe too: every line of standard input is answered in turn.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from llmstages.cli.transcript import Transcript
from llmstages.core.errors import StageError
from llmstages.pipeline import history
from llmstages.pipeline.history import PastRun, StoredArtifact
from llmstages.serve.chat_session import SMALL_CONTEXT, ChatSession, is_base_model, open_session

MAX_TEMPERATURE = 10
NUM_EXAMPLES = 3
HELP = """/tokens         the last exchange token by token, control tokens visible
/reset          forget the conversation
/system TEXT    a system message; without TEXT: none
/temperature X  0 always takes the most likely token
/model STEP     talk to another model
/tools          what it can call
/help           this
/quit           leave (also Ctrl-D); Ctrl-C stops a reply"""


def main(args: argparse.Namespace) -> int:
    """Choose the model, and talk until the input ends."""
    # transformers and huggingface_hub read these when they are imported, so they are set first.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if args.step and "=" in args.step:
        # `llmstages chat name=tune`: the first word is an override, not a step.
        args.step, args.overrides = None, [args.step, *args.overrides]
    run = history.last_run(args.overrides)
    artifact = history.find(args.step, run, "model") if args.step else default_model(run)
    if args.max_calls is not None and args.max_calls < 0:
        raise StageError(f"--max-calls {args.max_calls} must be 0 or more")
    if args.confirm and not sys.stdin.isatty():
        raise StageError(
            "--confirm asks at a terminal, but standard input is a pipe or a file; leave it "
            "out, or run the command in a terminal"
        )
    transcript = Transcript(Path(args.transcript)) if args.transcript else None
    terminal = Terminal(
        run,
        args.history or None,
        confirms=args.confirm,
        max_calls=args.max_calls,
        transcript=transcript,
    )
    terminal.run(artifact)
    return 0


def default_model(run: PastRun) -> StoredArtifact:
    """The model that the recipe chooses, otherwise the last one that was trained on chat.

    If there are only base models, it is the last of them.

    Raises:
        StageError: the run has no model.
    """
    models = run.of_kind("model")
    if not models:
        raise StageError(
            f"there is no model in {run.where} yet. Run `llmstages run` in this folder, name "
            "another store: store=FOLDER, or talk to a model of the hub: "
            "llmstages chat hub:ORG/NAME@REVISION"
        )
    for model in models:
        if model.name == run.chat:
            return model
    for model in reversed(models):
        if not is_base_model(model):
            return model
    return models[-1]


class Terminal:
    """What a person sees.

    Text of models and tools is cleaned of control characters, which could rewrite the terminal.
    """

    def __init__(
        self,
        past_run: PastRun,
        keeps_history: bool | None,
        *,
        confirms: bool = False,
        max_calls: int | None = None,
        transcript: Transcript | None = None,
    ) -> None:
        """confirms: ask before each tool call. max_calls: for one message; None: the default."""
        from rich.console import Console

        self.past_run = past_run
        self.keeps_history = keeps_history
        self.confirms = confirms
        self.max_calls = max_calls
        self.transcript = transcript
        # rich would color numbers and break lines in what the model writes.
        self.console = Console(highlight=False, soft_wrap=True)
        self.at_line_start = True
        self._session: ChatSession | None = None
        self.commands: dict[str, Callable[[str], None]] = {
            "/tokens": self.show_tokens,
            "/reset": self.reset,
            "/system": self.set_system_message,
            "/temperature": self.set_temperature,
            "/model": self.choose_model,
            "/tools": self.show_tools,
            "/help": self.show_help,
        }

    @property
    def session(self) -> ChatSession:
        """The conversation; there is one after load()."""
        assert self._session is not None
        return self._session

    @session.setter
    def session(self, session: ChatSession) -> None:
        self._session = session

    def run(self, artifact: StoredArtifact) -> None:
        """Answer line after line."""
        self.load(artifact)
        for line in self.read_lines():
            text = line.strip()
            if text.partition(" ")[0] in ("/quit", "/exit"):
                return
            try:
                if text.startswith("/"):
                    self.command(text)
                elif text:
                    self.reply(text)
            except StageError as error:
                self.print_line(f"error: {error}", "red")

    def load(self, artifact: StoredArtifact) -> None:
        """Open a model and introduce it."""
        from transformers.utils import logging as transformers_logging

        # Their bars and warnings would stand in the middle of the conversation.
        transformers_logging.disable_progress_bar()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        session = self.session = open_session(artifact, self.keeps_history)
        session.confirm = self.ask_before_call
        if self.max_calls is not None:
            session.max_tool_calls = self.max_calls
        millions = sum(weights.numel() for weights in session.model.parameters()) / 1e6
        tools = f", tools {' and '.join(session.tools)}" if session.tools else ""
        self.print_line(
            f"{session.name}: {millions:.1f} million parameters, "
            f"context of {session.context} tokens{tools}. /help lists the commands",
            "bold",
        )
        if artifact.outdated:
            self.print_line(artifact.outdated, "yellow")
        if limit := _limit_of(session):
            self.print_line(limit, "dim")
        if sys.stdin.isatty() and not session.is_base:
            self.show_examples()

    def show_examples(self) -> None:
        """Questions of the run to begin with, if it has any."""
        questions = example_questions(self.past_run)
        if questions:
            self.print_line("For example:", "dim")
        for question in questions:
            self.print_line(f"  {question}", "dim")

    def read_lines(self) -> Iterator[str]:
        """Lines of the user, until Ctrl-D or the end of a pipe."""
        if not sys.stdin.isatty():
            for line in sys.stdin:
                # Nobody types into a pipe, so each question is repeated above its answer.
                if line.strip():
                    self.print_line(f"> {without_control_characters(line.strip())}", "dim")
                yield line
            return
        import readline  # noqa: F401  (gives input() editing and history)

        while True:
            try:
                yield input("> ")
            except EOFError:
                self.print_line("")
                return
            except KeyboardInterrupt:
                self.print_line("\n(Ctrl-D leaves)", "dim")

    def reply(self, text: str) -> None:
        """Stream one answer. Ctrl-C stops it and keeps what there is of it."""
        continues = self.session.keeps_history and bool(self.session.turns)
        try:
            self.session.reply(text, self.show)
        except KeyboardInterrupt:
            self.print_line("\n(stopped)", "dim")
        self.end_line()
        if self.transcript:
            turns = self.session.turns
            asked = max(place for place, turn in enumerate(turns) if turn["role"] == "user")
            self.transcript.add(turns[asked:], self.session.system, continues)

    def ask_before_call(self, tool: str, argument: str) -> bool:
        """Whether the person allows a call; "always" allows all that follow."""
        if not self.confirms:
            return True
        self.end_line()
        shown = without_control_characters(f"{tool}({argument})")
        while True:
            try:
                answer = input(f"  run {shown}? [yes/no/always] ").strip().lower()
            except EOFError:
                return False
            if answer in ("a", "always"):
                self.confirms = False
                return True
            if answer in ("y", "yes"):
                return True
            if answer in ("", "n", "no"):
                return False

    def show(self, what: str, text: str) -> None:
        """Print a part of a reply (chat_session.Show)."""
        text = without_control_characters(text)
        if what == "text":
            self.console.print(text, end="", markup=False)
            if text:
                self.at_line_start = False
        elif what == "call":
            self.end_line()
            self.console.print(f"  {text}: ", end="", style="cyan dim", markup=False)
            self.at_line_start = False
        elif what == "argument":
            self.console.print(text, end="", style="cyan dim", markup=False)
        elif what == "result":
            self.end_line()
            self.print_line(f"  result: {text}", "dim")
        else:
            self.end_line()
            self.print_line(f"  ({text})", "dim")

    def print_line(self, text: str, style: str | None = None) -> None:
        """Print a whole line."""
        self.console.print(text, style=style, markup=False)
        self.at_line_start = True

    def end_line(self) -> None:
        """End a line that was printed in part."""
        if not self.at_line_start:
            self.print_line("")

    def command(self, text: str) -> None:
        """Run a /command."""
        name, _, argument = text.partition(" ")
        if name in self.commands:
            self.commands[name](argument.strip())
        else:
            self.print_line(f"there is no command {name}\n{HELP}")

    def reset(self, _argument: str = "") -> None:
        """Forget the conversation."""
        self.session.turns = []
        self.session.last_exchange = []
        self.print_line("forgotten", "dim")

    def set_system_message(self, text: str) -> None:
        """Set the system message; an empty text removes it."""
        self.session.system = text
        self.print_line(f"system message: {text}" if text else "no system message", "dim")

    def set_temperature(self, text: str) -> None:
        """Set the temperature of sampling."""
        try:
            value = float(text)
        except ValueError:
            value = -1.0  # refused below, with the same message as any other wrong number
        if not 0 <= value <= MAX_TEMPERATURE:
            self.print_line(
                f"/temperature takes a number from 0 to {MAX_TEMPERATURE}, not {text!r}; "
                f"it is {self.session.temperature:g}"
            )
            return
        self.session.temperature = value
        self.print_line(f"temperature {value:g}", "dim")

    def choose_model(self, name: str) -> None:
        """Talk to another model; without a name, to the default one."""
        if name:
            self.load(history.find(name, self.past_run, "model"))
        else:
            self.load(default_model(self.past_run))

    def show_tools(self, _argument: str = "") -> None:
        """List the tools that the model can call."""
        for name, tool in self.session.tools.items():
            lines = (type(tool).__doc__ or "").strip().splitlines()
            description = lines[0] if lines else ""
            self.print_line(f"{name}: {description}")
        if not self.session.tools:
            self.print_line("none: no step in the making of this model taught it tools")

    def show_tokens(self, _argument: str = "") -> None:
        """Show the last exchange token by token."""
        from llmstages.cli.commands.tokens import colored_tokens
        from llmstages.text.token_view import view_tokens

        ids = self.session.last_exchange
        if not ids:
            self.print_line("nothing was said yet")
            return
        views = view_tokens(self.session.tokenizer, ids)
        self.console.print(colored_tokens(views, self.console.color_system is not None))
        self.print_line(f"{len(ids)} of {self.session.context} tokens", "dim")

    def show_help(self, _argument: str = "") -> None:
        """List the commands."""
        self.print_line(HELP)


def _limit_of(session: ChatSession) -> str:
    """What not to expect of a model; "" for nothing in particular."""
    if session.is_base:
        return (
            "A base model, never trained on chat: it continues what you write as a document, "
            f"at temperature {session.temperature:g}"
        )
    if not session.keeps_history:
        return (
            "A small context: each question is asked on its own, without the conversation before "
            "it (--history keeps it)"
        )
    if session.context <= SMALL_CONTEXT:
        return "Small models of the story were trained on single exchanges; expect little memory"
    return ""


def without_control_characters(text: str) -> str:
    """The text without control characters, escape sequences above all."""
    zero_width_joiner = "\u200d"  # within emoji
    kept = []
    for character in text:
        if character.isprintable() or character in ("\n", "\t", zero_width_joiner):
            kept.append(character)
    return "".join(kept)


def example_questions(run: PastRun) -> list[str]:
    """Up to NUM_EXAMPLES questions of the run, of different tasks.

    They come from the problems with the most tasks.
    """
    by_task: dict[str, str] = {}
    for problems in run.of_kind("problems"):
        by_task = max(by_task, _first_questions(problems), key=len)
    questions = [without_control_characters(question) for question in by_task.values()]
    if len(questions) <= NUM_EXAMPLES:
        return questions
    last = len(questions) - 1
    spread = [round(index * last / (NUM_EXAMPLES - 1)) for index in range(NUM_EXAMPLES)]
    return [questions[index] for index in spread]


def _first_questions(problems: StoredArtifact) -> dict[str, str]:
    """Task -> its first question that is asked as chat and is not an example for other prompts."""
    from llmstages.data import tables

    folder = problems.path / "data"
    if not folder.exists():
        return {}
    questions: dict[str, str] = {}
    for row in tables.load(folder):
        if row.get("style", "chat") == "chat" and row.get("role", "test") == "test":
            questions.setdefault(str(row.get("task") or ""), str(row["prompt"][-1]["content"]))
    return questions
