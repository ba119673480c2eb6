"""``llmstages serve``: one model behind the OpenAI API, for programs that speak it."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from llmstages.core.errors import StageError
from llmstages.serve import server

KEY_VARIABLE = "LLMSTAGES_SERVE_KEY"
SHORTEST_KEY = 8  # characters
EXAMPLE = """  from openai import OpenAI
  client = OpenAI(base_url="{base}/v1", api_key="{key}")
  client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hi"}}])"""


def main(args: argparse.Namespace) -> int:
    """Load the model, and answer until Ctrl-C."""
    # transformers and huggingface_hub read these when they are imported, so they are set first.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from llmstages.pipeline import history
    from llmstages.pipeline.history import PastRun
    from llmstages.serve.openai_api import make_app
    from llmstages.serve.pool import ModelPool

    key = args.key or os.environ.get(KEY_VARIABLE)
    if key is not None and len(key) < SHORTEST_KEY:
        raise StageError(f"--key must have {SHORTEST_KEY} characters or more")
    if key is not None and not _fits_a_header(key):
        raise StageError("--key must consist of ASCII characters without blanks, as headers do")
    run = history.last_run(args.overrides)
    artifact = history.find(args.step, run, "model")
    # A folder is served under its own name: requests name it, and paths are nobody's business.
    name = artifact.name if args.step in run.steps else Path(args.step).name
    # A model from elsewhere has no record that says what it is.
    model = replace(artifact, name=name, record={"kind": "model", **artifact.record})
    served = PastRun({name: model}, run.where, run.store)
    server.require_packages()
    pool = ModelPool(served)
    loaded = pool.get(name)
    listener = server.bind(args.host, args.port)
    address = server.new_address(listener, args.host, key)
    tools = ", ".join(sorted(loaded.session.tools)) or "none"
    lines = [
        f"{name} at {address.base}/v1, key {address.token}",
        f"tools that run here: {tools}",
        EXAMPLE.format(base=address.base, key=address.token, model=name),
        "Ctrl-C stops it",
    ]
    server.serve(make_app(pool), listener, address, lines)
    return 0


def _fits_a_header(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key
