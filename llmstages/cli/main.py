"""The command line.

Each command is a module of llmstages/cli/commands, imported only when it is used, so that
``llmstages --help`` takes a tenth of a second.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from llmstages.core.exit_codes import INTERRUPTED

USAGE_ERROR = 2
EXAMPLES = """examples:
  llmstages run                                   the story, from raw pages to a report
  llmstages run rl=rejection                      swap one stage; what it does not touch is reused
  llmstages run rl.learning_rate=1e-6 only=rl     set a value; run up to one step
  llmstages run -m rl=grpo,rejection seed=0,1     a sweep and a comparison
  llmstages run launch=zero2 launch.processes=8   the same on eight processes with DeepSpeed
  llmstages plan recipe=smoke                     what would run, and why
"""
OVERRIDES_HELP = (
    "Hydra overrides: SLOT=VARIANT, STEP.KEY=VALUE, steps.STEP.INPUT=SOURCE, recipe=NAME, "
    "only=STEP, +..., ~..."
)
JSON_HELP = "one JSON object as the last line of standard output"


class Parser(argparse.ArgumentParser):
    """An argument parser that notes the options of all commands, to suggest near ones."""

    options: set[str] = set()

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.options.update(name for name in names if name.startswith("--"))
        return super().add_argument(*names, **settings)

    def add_overrides(self) -> None:
        self.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES_HELP)

    def add_json(self) -> None:
        self.add_argument("--json", action="store_true", help=JSON_HELP)


class Commands:
    """The sub-commands of a parser."""

    def __init__(self, parser: Parser) -> None:
        self._subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(self, name: str, help: str, example: str) -> Parser:
        """A new command.

        Args:
            name: of the command, and of its module in llmstages/cli/commands.
            help: one line about it.
            example: a command line without ``llmstages``.
        """
        return self._subparsers.add_parser(
            name,
            help=help,
            description=help,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  llmstages {example}",
        )


def make_parser() -> Parser:
    """The parser of all commands with their help."""
    parser = Parser(
        prog="llmstages",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
        description="From raw web pages to a tool-using, RL-tuned chat model: every stage is a "
        "plugin.",
    )
    commands = Commands(parser)
    _add_running(commands)
    _add_looking_up(commands)
    _add_store(commands)
    _add_models(commands)
    _add_going_out(commands)
    return parser


def _add_running(commands: Commands) -> None:
    """run, plan."""
    run = commands.add(
        "run", "plan, make what is missing, report", "run rl=rejection rl.learning_rate=1e-6"
    )
    run.add_overrides()
    run.add_json()
    run.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="run every combination of comma lists and compare",
    )
    run.add_argument("--name", help="name of the run: runs/NAME (default: the recipe's)")
    plan = commands.add("plan", "say what would run and why; runs nothing", "plan rl=rejection")
    plan.add_overrides()
    plan.add_json()


def _add_looking_up(commands: Commands) -> None:
    """list, show, inspect, check, report, new."""
    listed = commands.add(
        "list",
        "what is installed: stages, presets, filters, rewards, tools, evaluators, recipes",
        "list rl",
    )
    listed.add_argument(
        "slot", nargs="?", help="only this slot or group, with the options of each variant"
    )
    show = commands.add(
        "show",
        "a step's configuration and where each value came from, its inputs, metrics and lineage",
        "show rl",
    )
    _add_step(show)
    show.add_argument(
        "--url",
        help="of a corpus or documents step: what became of the page with this URL (or id) in "
        "the last run",
    )
    show.add_argument(
        "--log", action="store_true", help="what the step printed, with warnings and errors"
    )
    inspect = commands.add(
        "inspect",
        "tokens, mask and checks of what a step trains on, before it trains",
        "inspect sft --row dialogues:17",
    )
    inspect.add_argument("step", help="a step that trains")
    inspect.add_overrides()
    _add_row_options(inspect)
    check = commands.add(
        "check",
        "would a model train on these dialogues as it should? checks, tokens, mask, in seconds",
        "check ./SmolLM2-135M-Instruct chats.json",
    )
    check.add_argument("model", help="a folder, a .gguf file or hub:ORG/NAME@REVISION")
    check.add_argument("dialogues", help="a file, a folder or a glob in quotes")
    check.add_overrides()
    _add_row_options(check)
    report = commands.add("report", "print the path of the last report", "report --open")
    report.add_overrides()
    report.add_argument("--open", action="store_true", help="open it in a browser")
    new = commands.add(
        "new", "write a plugin package to start from", "new plugin my_filter --kind filter"
    )
    new.add_argument("what", choices=("plugin",), help="what to write")
    new.add_argument("name", help="name of the plugin, such as my_filter")
    new.add_argument(
        "--kind",
        default="filter",
        choices=("filter", "extractor", "reward", "grader", "tool", "evaluator", "rl", "slot"),
        help="what the plugin is (default: filter)",
    )
    new.add_argument("--folder", help="where to write it (default: llmstages-NAME)")


def _add_row_options(command: Parser) -> None:
    """Which rows are shown, and how."""
    command.add_argument(
        "--row",
        metavar="NAME",
        action="append",
        help="a row to show, by name (dialogues:17); may be given several times",
    )
    command.add_argument("--find", metavar="TEXT", help="only rows whose text contains this")
    command.add_argument(
        "--count", type=int, default=3, help="rows shown (default 3, spread over all)"
    )
    command.add_argument(
        "--template",
        action="store_true",
        help="print the chat template that the tokenizer is saved with",
    )
    command.add_argument("--html", metavar="FILE", help="write the same as a page")


def _add_store(commands: Commands) -> None:
    """ls, gc, redo, rm, verify."""
    listing = commands.add("ls", "what is in the store: results, sizes, runs, leftovers", "ls")
    listing.add_overrides()
    listing.add_json()
    collect = commands.add(
        "gc", "remove what no run links to, and what failed steps left; shows it first", "gc"
    )
    collect.add_overrides()
    collect.add_argument("--yes", action="store_true", help="remove it without asking")
    collect.add_argument(
        "--checkpoints",
        action="store_true",
        help="remove checkpoints of interrupted training as well",
    )
    _add_step(commands.add("redo", "forget a step's result and make it again", "redo rl"))
    _add_step(commands.add("rm", "forget a step's result", "rm rl"))
    verify = commands.add("verify", "read every stored file again and compare digests", "verify")
    verify.add_argument(
        "--inputs", action="store_true", help="also read the input files of all plans again"
    )
    verify.add_overrides()


def _add_models(commands: Commands) -> None:
    """chat, tokens, studio, serve."""
    chat = commands.add("chat", "talk to a model of the run", "chat sft")
    chat.add_argument(
        "step", nargs="?", help="a step that made a model (default: rl, or the last chat model)"
    )
    chat.add_overrides()
    chat.add_argument(
        "--history", action="store_true", help="keep the conversation also with a small context"
    )
    chat.add_argument(
        "--confirm", action="store_true", help="ask before each tool call; yes, no or always"
    )
    chat.add_argument(
        "--max-calls",
        type=int,
        metavar="N",
        help="tool calls that one message may lead to (default: 8)",
    )
    chat.add_argument(
        "--transcript",
        metavar="FILE",
        help="add each exchange, calls and results included, to a JSON lines file of dialogues, "
        "which dialogues=files reads",
    )
    tokens = commands.add(
        "tokens",
        "show how a tokenizer splits a text",
        'tokens "Hello world" --tokenizer tokenizer',
    )
    tokens.add_argument("text", help="the text, or - to read standard input")
    tokens.add_argument(
        "--tokenizer",
        metavar="STEP_OR_HUB",
        action="append",
        help="a step, a folder or hub:ORG/NAME@REVISION; several are shown side by side",
    )
    studio = commands.add(
        "studio",
        "a local page: runs as they go, chat with any model, a look inside, comparisons, lineage",
        "studio --open",
    )
    studio.add_overrides()
    _add_address(studio, 8321)
    studio.add_argument("--open", action="store_true", help="open it in a browser")
    served = commands.add(
        "serve",
        "answer as the OpenAI API does, with one model and its tools",
        "serve rl\n  llmstages serve ./SmolLM2-135M-Instruct --port 8080",
    )
    served.add_argument("step", help="a step that made a model, a folder or hub:ORG/NAME@REVISION")
    served.add_overrides()
    _add_address(served, 8322)
    served.add_argument(
        "--key",
        help="the API key that clients send (default: a new one; or set LLMSTAGES_SERVE_KEY)",
    )


def _add_address(command: Parser, port: int) -> None:
    """Where a server listens."""
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    command.add_argument(
        "--port", type=int, default=port, help=f"default {port}; 0 takes a free one"
    )


def _add_going_out(commands: Commands) -> None:
    """export, push."""
    export = commands.add(
        "export",
        "write a result as files that other programs read: a Hugging Face folder, GGUF, Parquet, "
        "JSON lines",
        "export sft --to my-model --dtype bfloat16\n  llmstages export sft --to my-model.gguf"
        "\n  llmstages export corpus --to corpus.parquet",
    )
    export.add_argument("step", help="a step, a folder or hub:ORG/NAME@REVISION")
    export.add_overrides()
    export.add_argument(
        "--to",
        required=True,
        metavar="PATH",
        help="a folder (model, tokenizer), FILE.gguf (model), FILE.parquet or FILE.jsonl (data)",
    )
    export.add_argument(
        "--dtype",
        default="",
        help="of the weights: bfloat16, float16, float32; q8_0 too in GGUF (default: as stored; "
        "16 bits in GGUF)",
    )
    export.add_argument(
        "--adapter", action="store_true", help="the LoRA adapter alone, if the step kept it"
    )
    export.add_argument(
        "--dropped", action="store_true", help="of data: what was dropped, with rule and value"
    )
    export.add_argument("--license", default="", help="license for the model card: apache-2.0")
    export.add_argument("--force", action="store_true", help="replace what is there")
    export.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        help="compare 20 replies with the source's (default: yes; in GGUF where llama-cpp-python "
        "is installed)",
    )
    push = commands.add(
        "push",
        "send a model to the Hugging Face Hub, into a private repository",
        "push sft my-name/my-model",
    )
    push.add_argument("step", help="a step that made a model, or a folder")
    push.add_argument("repository", metavar="ORG/NAME", help="created if it is not there")
    push.add_overrides()
    push.add_argument("--public", action="store_true", help="everybody may see it")
    push.add_argument("--revision", default="", help="a branch (default: main)")
    push.add_argument("--license", default="", help="license for the model card: apache-2.0")
    push.add_argument(
        "--logs", action="store_true", help="also send the log of training and its checks"
    )


def _add_step(command: Parser) -> None:
    command.add_argument("step", help="name of a step of the recipe")
    command.add_overrides()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The codes are 0 done, 1 a step failed, 2 a mistake of the user, 75 stopped by SIGTERM, 130 by
    Ctrl-C.
    """
    args = _parse(list(sys.argv[1:] if argv is None else argv))
    try:
        command = importlib.import_module(f"llmstages.cli.commands.{args.command}")
        return command.main(args) or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `llmstages list | head`: at exit Python would flush to the closed pipe and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # The last boundary: nobody sees a traceback without asking for one.
        return _report_error(error)


def _parse(words: list[str]) -> argparse.Namespace:
    """The parsed command line; overrides may stand on both sides of an option."""
    args, rest = make_parser().parse_known_args(words)
    # argparse gives up on positional arguments after an option, so overrides there are in `rest`.
    takes_overrides = hasattr(args, "overrides")
    for word in rest:
        if word.startswith("-") or not takes_overrides:
            _refuse_option(word, args.command)
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _refuse_option(word: str, command: str) -> None:
    from llmstages.core.errors import near

    others = sorted(Parser.options - {word})  # the word may be an option of another command
    print(
        f"error: unknown option {word!r}.{near(word, others)} See llmstages {command} --help",
        file=sys.stderr,
    )
    raise SystemExit(USAGE_ERROR)


def _report_error(error: Exception) -> int:
    """Print one message and return the exit code."""
    from llmstages.core.errors import StageError
    from llmstages.core.secrets import mask

    if os.environ.get("LLMSTAGES_DEBUG"):
        traceback.print_exc()
    if isinstance(error, StageError):
        print(mask(f"error: {error}"), file=sys.stderr)
        return USAGE_ERROR
    hint = "LLMSTAGES_DEBUG=1 shows where; please report it if your input was right"
    print(mask(f"error: {type(error).__name__}: {error}. {hint}"), file=sys.stderr)
    return 1
