"""``llmstages check MODEL DIALOGUES``: would this model train on these dialogues as it should?

The checks, tokens and loss masks of ``recipe=tune``, without a recipe: nothing is trained.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from llmstages.cli.commands.inspect import inspect
from llmstages.core.errors import StageError
from llmstages.core.exit_codes import FAILED

STEP = "sft"


def main(args: argparse.Namespace) -> int:
    """Print checks and rows; the exit code is 1 if a check fails."""
    overrides = [
        "recipe=tune",
        *model_overrides(args.model),
        f"dialogues.path={quoted(existing(args.dialogues, 'DIALOGUES'))}",
        *args.overrides,
    ]
    args.overrides = overrides
    args.step = STEP
    return FAILED if inspect(args) else 0


def model_overrides(given: str) -> list[str]:
    """The overrides that begin a run with a model: a folder, a GGUF file, or hub:ORG/NAME@REV."""
    if given.startswith("hub:"):
        name, _, revision = given.removeprefix("hub:").partition("@")
        return ["model=hub", f"model.name={name}", f"model.revision={revision or 'main'}"]
    return [f"model.path={quoted(existing(given, 'MODEL'))}"]


def existing(given: str, what: str) -> str:
    """The path, if there is something. Raises StageError otherwise."""
    if any(mark in given for mark in "*?["):
        return given  # a glob, which the step resolves
    if not Path(given).expanduser().exists():
        raise StageError(
            f"{what}: there is no {given!r} here ({Path.cwd()}). A model is a folder, a .gguf file "
            "or hub:ORG/NAME@REVISION; dialogues are a file, a folder or a glob in quotes"
        )
    return given


def quoted(path: str) -> str:
    """A path as a value on Hydra's command line, which has a grammar of its own."""
    if re.fullmatch(r"[\w./~-]+", path):
        return path
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
