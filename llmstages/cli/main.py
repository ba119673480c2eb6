"""The command line. Each command lives in llmstages/commands and is imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

EXAMPLES = """examples:
  llmstages run                                   the story, from raw pages to a report
  llmstages run rl=rejection                      swap one stage; what it does not touch is reused
  llmstages run rl.learning_rate=1e-6 only=rl     set a value; run up to one step
  llmstages run -m rl=grpo,rejection seed=0,1     a sweep and a comparison
  llmstages run launch=zero2 launch.processes=8   the same on eight processes with DeepSpeed
  llmstages plan recipe=smoke                     what would run, and why
"""
OVERRIDES = "Hydra overrides: SLOT=VARIANT, STEP.KEY=VALUE, steps.STEP.INPUT=SOURCE, recipe=NAME, only=STEP, +..., ~..."


def parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="llmstages",
        formatter_class=raw,
        epilog=EXAMPLES,
        description="From raw web pages to a tool-using, RL-tuned chat model: every stage a plugin.",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, help: str, example: str, overrides: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=help,
            description=help,
            formatter_class=raw,
            epilog=f"example:\n  llmstages {example}",
        )
        if overrides:
            made.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES)
        return made

    run = add("run", "plan, make what is missing, report", "run rl=rejection rl.learning_rate=1e-6")
    run.add_argument(
        "--json", action="store_true", help="one JSON object as the last line of standard output"
    )
    run.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="run every combination of comma lists and compare",
    )
    run.add_argument("--name", help="name of the run: runs/NAME (default: the recipe's)")
    plan = add("plan", "say what would run and why; runs nothing", "plan rl=rejection")
    plan.add_argument(
        "--json", action="store_true", help="one JSON object as the last line of standard output"
    )
    listed = add(
        "list",
        "what is installed: stages, presets, filters, rewards, tools, tasks, recipes",
        "list rl",
        overrides=False,
    )
    listed.add_argument("slot", nargs="?", help="only this slot or group, with a line on each")
    for name, help in (
        (
            "show",
            "a step's configuration and where each value came from, its inputs, metrics and lineage",
        ),
        ("redo", "forget a step's result and make it again"),
        ("rm", "forget a step's result"),
    ):
        made = add(name, help, f"{name} rl", overrides=False)
        made.add_argument("step", help="name of a step of the recipe")
        made.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES)
        if name == "show":
            made.add_argument(
                "--url",
                help="of a corpus or documents step: what became of the page with this URL (or id) in the last run",
            )
    inspect = add(
        "inspect",
        "tokens, mask and gates of what a step trains on, before it trains",
        "inspect sft --row dialogues:17",
        overrides=False,
    )
    inspect.add_argument("step", help="a step that trains")
    inspect.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES)
    inspect.add_argument(
        "--row",
        metavar="NAME",
        action="append",
        help="rows to show, by name (dialogues:17); several: write it again",
    )
    inspect.add_argument("--find", metavar="TEXT", help="only rows whose text holds this")
    inspect.add_argument(
        "--count", type=int, default=3, help="rows shown (default 3, spread over all)"
    )
    inspect.add_argument(
        "--template",
        action="store_true",
        help="print the chat template that the tokenizer is saved with",
    )
    inspect.add_argument("--html", metavar="FILE", help="write the same as a page")
    report = add("report", "print the path of the last report", "report --open")
    report.add_argument("--open", action="store_true", help="open it in a browser")
    add("verify", "read every stored file again and compare digests", "verify")
    chat = add("chat", "talk to a model of the run", "chat sft", overrides=False)
    chat.add_argument("step", nargs="?", help="a step that made a model (default: the last one)")
    chat.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES)
    chat.add_argument(
        "--history", action="store_true", help="keep what was said also with a small context"
    )
    tokens = add(
        "tokens",
        "show how a tokenizer cuts a text",
        'tokens "Hello world" --tokenizer tokenizer',
        overrides=False,
    )
    tokens.add_argument("text", help="the text, or - to read standard input")
    tokens.add_argument(
        "--tokenizer",
        metavar="STEP_OR_HUB",
        action="append",
        help="a step, a folder or hub:ORG/NAME@REVISION; several: side by side",
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 a step failed, 2 a mistake in what was asked, 75 stopped by SIGTERM, 130 by Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parse(argv)
    try:
        return importlib.import_module(f"llmstages.cli.commands.{args.command}").main(args) or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `llmstages list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (
        Exception
    ) as error:  # the last boundary: nobody should see a traceback who has not asked for one
        return _told(error)


def _parse(argv: list[str]) -> argparse.Namespace:
    args, rest = parser().parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or not hasattr(args, "overrides")]
    if unknown:
        from llmstages.core.errors import near

        flags = [
            "--json",
            "--multirun",
            "--name",
            "--help",
            "--open",
            "--history",
            "--tokenizer",
            "--url",
            "--row",
            "--find",
            "--count",
            "--template",
            "--html",
        ]
        flags = [flag for flag in flags if flag != unknown[0]]  # known, but not to this command
        print(
            f"error: unknown option {unknown[0]!r}.{near(unknown[0], flags)} See llmstages {args.command} --help",
            file=sys.stderr,
        )
        raise SystemExit(2)
    if rest:  # overrides may stand on both sides of a flag
        args.overrides = [*args.overrides, *rest]
    return args


def _told(error: Exception) -> int:
    from llmstages.core.errors import StageError
    from llmstages.core.secrets import mask

    if os.environ.get("LLMSTAGES_DEBUG"):
        traceback.print_exc()
    if isinstance(error, StageError):
        print(mask(f"error: {error}"), file=sys.stderr)
        return 2
    hint = "LLMSTAGES_DEBUG=1 shows where; please report it if your input was right"
    print(mask(f"error: {type(error).__name__}: {error}. {hint}"), file=sys.stderr)
    return 1
