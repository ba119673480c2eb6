"""``llmstages verify``: read every stored file again and compare it with its recorded digest."""

from __future__ import annotations

import argparse

from llmstages.core.console import Console
from llmstages.pipeline.compose_cache import compose
from llmstages.pipeline.store import Store


def main(args: argparse.Namespace) -> int:
    """Print what is damaged; the exit code is 1 if anything is."""
    console = Console()
    store = Store(compose(args.overrides).store)
    keys = store.keys()
    damaged: dict[str, list[str]] = {}
    with console.progress("verify", len(keys)) as advance:
        for key in keys:
            problems = store.verify(key)
            if problems:
                damaged[key] = problems
            advance(1, key)
    for key, problems in damaged.items():
        for problem in problems:
            console.say(problem)
        step = key.rpartition("-")[0]
        console.say(
            f"  to fix it: llmstages rm {step}, then run again; or remove {store.folder(key)}"
        )
    console.say(f"{len(keys)} steps in {store.path}/, {len(damaged)} damaged")
    return 1 if damaged else 0
