"""``llmstages verify``: read every stored file again and compare it with the digest written when it was made."""

from __future__ import annotations

import argparse

from llmstages.core.console import Console
from llmstages.pipeline.compose_cache import compose
from llmstages.pipeline.store import Store


def main(args: argparse.Namespace) -> int:
    """Exit code 1 if anything in the store is not what was written."""
    console = Console()
    store = Store(compose(args.overrides).store)
    wrong: dict[str, list[str]] = {}
    with console.progress("verify", len(store.keys())) as advance:
        for key in store.keys():
            if found := store.verify(key):
                wrong[key] = found
            advance(1, key)
    for key, found in wrong.items():
        for text in found:
            console.say(text)
        console.say(
            f"  mend it: llmstages rm {key.rpartition('-')[0]}, then run again; or remove {store.folder(key)}"
        )
    console.say(f"{len(store.keys())} steps in {store.path}/, {len(wrong)} damaged")
    return 1 if wrong else 0
