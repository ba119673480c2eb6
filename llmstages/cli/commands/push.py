"""``llmstages push``: a model with its card as a repository of the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmstages.cli.model_facts import card_facts
from llmstages.convert.hf_folder import CARD
from llmstages.convert.hub_upload import files_to_send, push_folder
from llmstages.convert.model_card import model_card
from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.pipeline import history
from llmstages.pipeline.sources import MODELS


def main(args: argparse.Namespace) -> int:
    """Send the model of a step, or an exported folder with the card that it has."""
    console = Console()
    run = history.last_run(args.overrides)
    artifact = history.find(args.step, run, "model")
    if artifact.outdated:
        console.say(artifact.outdated)
    if artifact.kind and artifact.kind not in MODELS:
        raise StageError(
            f"{artifact.name} is a {artifact.kind}; models and tokenizers can be pushed. For data: "
            f"llmstages export {artifact.name} --to {artifact.name}.parquet, then hf upload"
        )
    card = ""
    files_to_send(artifact.path)
    if not (artifact.path / CARD).exists() and (artifact.path / "config.json").exists():
        name = args.repository.partition("/")[2]
        card = model_card(card_facts(artifact, name, args.license))
    elif args.license:
        raise StageError(
            f"--license is for the card that is made here, and {args.step} has a {CARD} or is no "
            "model: write the license into its first lines"
        )
    sent = push_folder(
        artifact.path,
        args.repository,
        card=card,
        public=args.public,
        revision=args.revision,
        logs=args.logs,
        say=console.say,
    )
    access = "private" if sent.private else "public"
    console.say(f"{sent.address}  ({access}, commit {sent.commit[:10]})")
    if args.public and sent.private:
        console.say("        the repository was there and stays private; its settings change that")
    if "TODO" in (card or _own_card(artifact.path)):
        console.say(f"        its card has a TODO, the license: {sent.address}/edit/main/{CARD}")
    console.say(f"next    llmstages chat hub:{args.repository}")
    return 0


def _own_card(folder: Path) -> str:
    card = folder / CARD
    return card.read_text(encoding="utf-8") if card.exists() else ""
