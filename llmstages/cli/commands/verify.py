"""``llmstages verify``: read every stored file again and compare it with its recorded digest.

With --inputs also every file that a plan has read, which is otherwise told by size and dates.
"""

from __future__ import annotations

import argparse

from llmstages.core.console import Console
from llmstages.core.digest import Digests
from llmstages.pipeline.compose_cache import compose
from llmstages.pipeline.plan import DIGESTS
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
    exchanged = _exchanged_inputs(store, console) if args.inputs else 0
    return 1 if damaged or exchanged else 0


def _exchanged_inputs(store: Store, console: Console) -> int:
    """Read every input file of the plans of a store again; returns how many have changed unseen."""
    digests = Digests(store.path / DIGESTS)
    checked = exchanged = 0
    with console.progress("inputs", len(digests.known)) as advance:
        for path, is_same in digests.recheck():
            checked += 1
            if not is_same:
                exchanged += 1
                console.say(f"{path} has another content, though its size and dates are the same")
            advance(1, path)
    digests.save()
    console.say(f"{checked} input files read, {exchanged} exchanged; the next plan knows them")
    return exchanged
