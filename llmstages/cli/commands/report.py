"""``llmstages report``: where the last report is; with --open, in a browser."""

from __future__ import annotations

import argparse
import webbrowser

from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.pipeline.compose_cache import compose
from llmstages.pipeline.store import Store


def main(args: argparse.Namespace) -> int:
    """Print the path of the newest report in the store."""
    store = Store(compose(args.overrides).store)
    reports = [record for record in store.records() if record["kind"] == "report"]
    if not reports:
        raise StageError(
            f"there is no report in {store.path}/ yet. Run `llmstages run` in this folder, "
            "or name another store: store=FOLDER"
        )
    newest = max(reports, key=lambda report: (report["finished"], report["key"]))
    path = store.folder(newest["key"]) / "index.html"
    Console().say(str(path))
    if args.open:
        webbrowser.open(path.resolve().as_uri())
    return 0
