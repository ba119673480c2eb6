"""``llmstages export``: the result of a step as a folder or a file that other programs read."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from llmstages.cli import model_export
from llmstages.cli.model_export import Target
from llmstages.convert import gguf_weights
from llmstages.convert.table_files import ENDINGS, export_table, is_table_file
from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.core.opening import TABLES
from llmstages.pipeline import history
from llmstages.pipeline.history import StoredArtifact
from llmstages.pipeline.sources import MODELS

GGUF = ".gguf"
# A folder of such a name would be a mistake: the user expects a file.
OTHER_ENDINGS = (".csv", ".json", ".txt", ".zip", ".tar", ".gz", ".safetensors", ".bin", ".pt")


def main(args: argparse.Namespace) -> int:
    """Find the result, check that the options fit it, and write it."""
    # The libraries read these when they are imported, so they are set first.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # their bars; the command has one of its own
    logging.getLogger("gguf").setLevel(logging.WARNING)
    console = Console()
    run = history.last_run(args.overrides)
    artifact = history.find(args.step, run, "model")
    if artifact.outdated:
        console.say(artifact.outdated)
    kind = artifact.kind or kind_of(artifact.path)
    target = Target(Path(args.to).expanduser(), args.force)
    if is_table_file(target.path.name):
        _export_table(artifact, kind, target, args, console)
        return 0
    if kind not in MODELS:
        raise StageError(_wrong_target(artifact, kind))
    if target.path.name.endswith(OTHER_ENDINGS):
        raise StageError(
            f"a {kind} is not written as {target.path.suffix}: give the name of a folder, or of a "
            f"file that ends in {GGUF}"
        )
    _refuse_options(args, {"--dropped": args.dropped}, "tables (corpus, documents)")
    if target.path.name.endswith(GGUF):
        _export_gguf(artifact, kind, target, args, console)
    else:
        _export_folder(artifact, kind, target, args, console)
    return 0


def kind_of(folder: Path) -> str:
    """The kind of a folder that has no record."""
    if (folder / "config.json").exists():
        text = (folder / "config.json").read_text(encoding="utf-8")
        return "reward_model" if "ForSequenceClassification" in text else "model"
    if (folder / "tokenizer_config.json").exists():
        return "tokenizer"
    if (folder / "data").is_dir():
        return "corpus" if (folder / "funnel.json").exists() else "dialogues"
    raise StageError(
        f"{folder} is nothing that can be exported: it has no config.json (a model), no "
        "tokenizer_config.json and no table in data/"
    )


def _wrong_target(artifact: StoredArtifact, kind: str) -> str:
    if kind in TABLES:
        endings = ", ".join(ENDINGS)
        return (
            f"{artifact.name} is a table ({kind}): give a file that ends in {endings}, for "
            f"example --to {artifact.name}.parquet"
        )
    return (
        f"{artifact.name} is of the kind {kind}, which has no other format. Its files are in "
        f"{artifact.path}; cp -rL copies them"
    )


def _refuse_options(args: argparse.Namespace, options: dict[str, object], meant_for: str) -> None:
    """Refuse options that would do nothing."""
    for option, value in options.items():
        if value:
            raise StageError(
                f"{option} is for {meant_for}; {args.step} --to {args.to} is something else: "
                "leave it out"
            )


def _export_table(
    artifact: StoredArtifact, kind: str, target: Target, args: argparse.Namespace, console: Console
) -> None:
    if kind not in TABLES:
        raise StageError(
            f"{artifact.name} is a {kind}, not a table: give a folder, or a file that ends in "
            f"{GGUF} for llama.cpp"
        )
    options = {
        "--adapter": args.adapter,
        "--dtype": args.dtype,
        "--license": args.license,
        "--check": args.check,
    }
    _refuse_options(args, options, "models")
    folder = artifact.path / ("dropped" if args.dropped else "data")
    if args.dropped and not folder.is_dir():
        raise StageError(
            f"{artifact.name} ({kind}) has no table of what was dropped; corpus and documents "
            "steps have one"
        )
    target.require_free()
    with console.progress("export") as advance:
        rows = export_table(folder, target.path, advance)
    size = target.path.stat().st_size / 1e6
    what = "dropped rows" if args.dropped else "rows"
    console.say(f"{artifact.name}: {rows:,} {what}, {size:,.1f} MB, in {target.path}")
    reader = "parquet" if target.path.name.endswith(".parquet") else "json"
    loading = f'datasets.load_dataset("{reader}", data_files="{target.path}")'
    console.say(f"next    {loading}")


def _export_gguf(
    artifact: StoredArtifact, kind: str, target: Target, args: argparse.Namespace, console: Console
) -> None:
    if kind != "model":
        raise StageError(
            f"{artifact.name} is a {kind}; GGUF is for models that write text. Export a folder"
        )
    options = {"--adapter": args.adapter, "--license": args.license}
    _refuse_options(args, options, "Hugging Face folders")
    gguf_weights.require_gguf()
    target.require_free()
    model_export.to_gguf(artifact, target, args.dtype, args.check, console)
    console.say(f"next    llama-cli -m {target.path}")
    console.say(f"        llama-server -m {target.path}")


def _export_folder(
    artifact: StoredArtifact, kind: str, target: Target, args: argparse.Namespace, console: Console
) -> None:
    if kind != "model":
        options = {"--adapter": args.adapter, "--license": args.license, "--check": args.check}
        _refuse_options(args, options, "models that write text")
    target.require_free()
    if args.adapter:
        _refuse_options(args, {"--dtype": args.dtype, "--check": args.check}, "whole models")
        base = model_export.to_adapter_folder(artifact, target, args.license, console)
        console.say(f"next    peft loads it on {base}: AutoPeftModelForCausalLM")
        console.say(f"        llmstages push {target.path} ORG/NAME")
        return
    model_export.to_folder(artifact, kind, target, args.dtype, args.license, args.check, console)
    if kind == "model":
        console.say(f"next    llmstages chat {target.path}")
        console.say(
            f'        transformers serve   (then {{"model": "{target.path.resolve()}", ...}})'
        )
        console.say(f"        vllm serve {target.path}")
    console.say(f"        llmstages push {target.path} ORG/NAME")
