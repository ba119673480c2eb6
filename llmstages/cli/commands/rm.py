"""``llmstages rm STEP``: forget a step's result, or what an unfinished one left behind."""

from __future__ import annotations

import argparse
import time

from llmstages.core.console import Console, format_bytes
from llmstages.pipeline import history, prepare, usage
from llmstages.pipeline.store import Store


def main(args: argparse.Namespace) -> int:
    """Remove the result of a step that the last run made; other results of the step stay.

    Overrides change what is composed, as in ``llmstages show``.
    """
    console = Console()
    prepared = prepare.prepare_past(args.overrides, args.step, console.say)
    plan = prepared.find(args.step)
    if plan.state != "reused":
        if not _remove_leftover(prepared.store, plan.key, console):
            console.say(f"{plan.key} is not in {prepared.composed.store}/; nothing to remove")
        return 0
    forget(prepared.store, plan.key, console)
    console.say("the next run makes it again")
    kept = history.made_from(prepared.store, plan.key)
    if kept:
        console.say(f"made from it and kept: {', '.join(kept)}")
    return 0


def _remove_leftover(store: Store, key: str, console: Console) -> bool:
    """Remove what a step that was not finished left behind; whether there was anything."""
    for item in usage.leftovers(store):
        # An empty folder is what the lock of a removed result leaves.
        if item.key != key or not item.size:
            continue
        what = "checkpoints" if item.has_checkpoints else "files"
        console.say(f"removing {item.path} ({format_bytes(item.size)}): {what} of a step not done")
        if usage.remove_leftover(store, item):
            console.say("the next run begins it anew")
        else:
            console.say("kept: another run is working on it")
        return True
    return False


def forget(store: Store, key: str, console: Console) -> None:
    """Remove a finished step once no other run is making it; it is named before."""
    record = store.record(key)
    made_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(record["finished"]))
    size = sum(size for size, _ in record["files"].values())
    console.say(f"removing {store.folder(key)} ({format_bytes(size)}, made {made_at})")
    with store.making(key, console.say):
        store.forget(key)
