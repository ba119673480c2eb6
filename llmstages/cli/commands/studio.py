"""``llmstages studio``: a local page over the store, to watch runs and to talk to models."""

from __future__ import annotations

import argparse
import os
import webbrowser
from pathlib import Path

from llmstages.serve import server


def main(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    # transformers and huggingface_hub read these when they are imported, so they are set first.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from llmstages.pipeline import history
    from llmstages.pipeline.compose_cache import compose
    from llmstages.studio.app import Studio, make_app

    server.require_packages()
    run = history.last_run(args.overrides)
    studio = Studio(run, runs=Path(compose(args.overrides).runs))
    listener = server.bind(args.host, args.port)
    address = server.new_address(listener, args.host)
    lines = [f"studio of {run.where}: {address.link}", "Ctrl-C stops it"]
    if args.open:
        webbrowser.open(address.link)
    server.serve(make_app(studio), listener, address, lines)
    return 0
