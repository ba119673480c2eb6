"""``llmstages report``: where the report of the last run is; with --open, in a browser."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.pipeline import history


def main(args: argparse.Namespace) -> int:
    """Print the path of the page of the last run, or of the one that is named."""
    console, warnings = Console(), Console(to_stderr=True)  # standard output is the path alone
    run = history.last_run(args.overrides)
    reports = run.of_kind("report")
    if not reports:
        raise StageError(
            f"there is no report in {run.where}/ yet. Run `llmstages run` in this folder, "
            "or name another run or store: name=NAME, store=FOLDER"
        )
    report = reports[-1]
    if report.outdated:
        warnings.say(report.outdated)
    for step in history.newer_sources(report, run):
        warnings.say(f"the page is about an earlier {step}; `llmstages run` makes it again")
    path = Path(run.where) / report.name / "index.html"
    if not path.exists():  # a result of the store, where no run links to it
        path = report.path / "index.html"
    console.say(str(path))
    if args.open:
        webbrowser.open(path.resolve().as_uri())
    return 0
