"""``llmstages gc``: remove results that no run uses, and what failed steps left behind.

It shows first what would go, and asks. What a live process works on is never touched.
"""

from __future__ import annotations

import argparse
import sys

from llmstages.cli.commands.ls import age, state
from llmstages.core.console import Console, format_bytes
from llmstages.pipeline import usage
from llmstages.pipeline.compose_cache import compose
from llmstages.pipeline.store import Store
from llmstages.pipeline.usage import Leftover, StoredStep


def main(args: argparse.Namespace) -> int:
    """Show what would go, ask, and remove it."""
    console = Console()
    composed = compose(args.overrides)
    store = Store(composed.store)
    unused = [step for step in usage.stored_steps(store, composed.runs) if not step.needed]
    kept: list[Leftover] = []
    useless: list[Leftover] = []
    for item in usage.leftovers(store):
        is_kept = item.in_use or (item.has_checkpoints and not args.checkpoints)
        (kept if is_kept else useless).append(item)
    for item in kept:
        console.say(f"kept: {item.path} ({format_bytes(item.size)}): {state(item)}")
    if not unused and not useless:
        console.say(f"nothing to remove in {store.path}/")
        return 0
    rows = [(step.key, format_bytes(step.size), age(step.finished), "in no run") for step in unused]
    rows += [
        (f".tmp/{item.path.name}", format_bytes(item.size), age(item.changed), state(item))
        for item in useless
    ]
    console.table(f"to remove from {store.path}/", ("what", "size", "age", "why"), rows)
    freed = sum(item.size for item in (*unused, *useless))
    console.say(f"\n{len(rows)} folders, {format_bytes(freed)}")
    if not args.yes and not _confirmed(console):
        return 0
    _remove(store, unused, useless, console)
    return 0


def _confirmed(console: Console) -> bool:
    """Whether the person at the terminal agrees; nobody else can."""
    if not sys.stdin.isatty():
        console.say("nothing was removed; `llmstages gc --yes` removes it")
        return False
    answer = input("remove all of it? [y/N] ")
    if answer.strip().lower() in ("y", "yes"):
        return True
    console.say("nothing was removed")
    return False


def _remove(
    store: Store, unused: list[StoredStep], useless: list[Leftover], console: Console
) -> None:
    freed = 0
    for step in unused:
        if usage.remove_step(store, step.key):
            freed += step.size
        else:
            console.say(f"kept: {step.key} is in use now")
    for item in useless:
        if usage.remove_leftover(store, item):
            freed += item.size
        else:
            console.say(f"kept: {item.path} is in use now")
    console.say(f"removed {format_bytes(freed)}")
