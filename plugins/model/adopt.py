"""A model from elsewhere as an artifact: its files copied, its parts checked against each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmstages.convert.weight_files import WeightFiles
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.plugins.model.facts import TOKENIZER_FILES, read_facts, read_json

# Everything else (readme, other formats of the weights, training state) is not part of the model.
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
TOKENIZER_PATTERNS = (
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def adopt(
    folder: Path, ctx: Context, where: str, tokenizer: Path | None = None, link: bool = False
) -> None:
    """Fill ``ctx.out`` with the model in a folder; its dtype stays.

    Args:
        folder: a model in the format of transformers, with weights in safetensors or .bin files.
        ctx: where to write.
        where: the option that names the folder, for messages.
        tokenizer: the folder of the tokenizer, if it is another one.
        link: hard links instead of copies.
    """
    read_facts(folder, where, tokenizer)
    if any(folder.glob("*.safetensors")):
        _require_all_shards(folder, where)
        take_files(folder, ctx.out, MODEL_FILES, link)
    else:
        _convert_weights(folder, ctx, where)
    take_files(tokenizer or folder, ctx.out, TOKENIZER_PATTERNS, link)


def take_files(source: Path, target: Path, patterns: tuple[str, ...], link: bool) -> None:
    """Copy or link the files of a folder that match one of the patterns."""
    for pattern in patterns:
        for file in sorted(source.glob(pattern)):
            destination = target / file.name
            destination.unlink(missing_ok=True)
            if link:
                try:
                    os.link(file.resolve(), destination)
                    continue
                except OSError:
                    pass  # another file system: copy instead
            shutil.copyfile(file, destination)


def _require_all_shards(folder: Path, where: str) -> None:
    """Refuse a model of which a file is missing or cut off, before anything is trained on it."""
    from safetensors import SafetensorError, safe_open

    for index in folder.glob("*.safetensors.index.json"):
        named = set(read_json(index, where)["weight_map"].values())
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing:
            raise StageError(
                f"{where}={folder}: {len(missing)} of {len(named)} weight files are missing "
                f"({', '.join(missing[:3])}): fetch the model again"
            )
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np"):
                pass
        except SafetensorError as error:
            raise StageError(
                f"{where}={folder}: {file.name} cannot be read ({error}); it may be cut off, or a "
                "pointer of Git LFS: fetch the model again"
            ) from error


def _convert_weights(folder: Path, ctx: Context, where: str) -> None:
    """Write the weights of .bin files as safetensors. transformers reads them without code."""
    from transformers import AutoModelForCausalLM

    if not any(folder.glob("*.bin")):
        raise StageError(
            f"{where}={folder}: there are no weights in this folder (*.safetensors or *.bin)"
        )
    ctx.say(f"{ctx.step}: weights in .bin files are written as safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.save_pretrained(ctx.out)


def merge_adapter(folder: Path, base: str, ctx: Context, where: str) -> None:
    """Fill ``ctx.out`` with a PEFT adapter merged into its base model.

    Args:
        folder: with an adapter_config.json.
        base: the folder of the base model; "" for the one that the adapter names.
        ctx: where to write.
        where: the option that names the folder, for messages.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base_folder = base_of(folder, base, where)
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = AutoTokenizer.from_pretrained(folder if has_tokenizer else base_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(base_folder, dtype="auto")
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        # The adapter was trained with new tokens, whose rows it brings along.
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    merged: Any = PeftModel.from_pretrained(model, folder).merge_and_unload()
    if has_tokenizer:
        _stop_as(merged, tokenizer)
    merged.save_pretrained(ctx.out)
    tokenizer.save_pretrained(ctx.out)
    ctx.say(f"{ctx.step}: the adapter in {folder} is merged into {base_folder}")


def base_of(folder: Path, base: str, where: str) -> Path:
    """The folder of the model that an adapter belongs to.

    Raises:
        StageError: it is not on this machine.
    """
    config = read_json(folder / "adapter_config.json", where)
    base = base or str(config.get("base_model_name_or_path") or "")
    base_folder = Path(base).expanduser()
    if not (base_folder / "config.json").is_file():
        step = where.rpartition(".")[0]
        raise StageError(
            f"{where}={folder} is a PEFT adapter of the model {base!r}, which is not a folder "
            f"here. Name it: {step}.base=FOLDER"
        )
    return base_folder


def _stop_as(model: Any, tokenizer: Any) -> None:
    """Let a model stop at the end token of the tokenizer that its adapter was trained with."""
    end = tokenizer.eos_token_id
    stops = model.generation_config.eos_token_id
    known = stops if isinstance(stops, list) else [stops]
    if end is None or end in known:
        return
    model.generation_config.eos_token_id = [end, *(stop for stop in known if stop is not None)]
    model.config.eos_token_id = end


def measure(ctx: Context, where: str) -> Mapping[str, float]:
    """The metrics of the model in ``ctx.out``. Raises StageError if its tokenizer does not fit."""
    from transformers import AutoTokenizer

    facts = read_facts(ctx.out, where)
    try:
        tokenizer = AutoTokenizer.from_pretrained(ctx.out)
    # The files come from elsewhere, and the loaders of tokenizers raise whatever they meet.
    except Exception as error:
        raise StageError(
            f"{where}: the tokenizer cannot be loaded ({type(error).__name__}: {error})"
        ) from error
    if facts.vocab_size and len(tokenizer) > facts.vocab_size:
        raise StageError(
            f"{where}: the tokenizer has {len(tokenizer)} tokens, but the model has embeddings for "
            f"{facts.vocab_size}: it is the tokenizer of another model"
        )
    parameters = WeightFiles(ctx.out).parameters()
    ctx.say(f"{ctx.step}: {facts.summary()}")
    return {
        "parameters": parameters,
        "context": facts.context,
        "vocab_size": facts.vocab_size,
        "tokens": len(tokenizer),
        "chat_template": float(facts.has_template),
    }
