"""An ordinary Hugging Face folder from a model artifact: real files, in a type of your choice.

What belongs to the model is copied (configuration, weights, tokenizer, code, licenses). What
belongs to the run that made it (record, logs, checkpoints) is left out and counted. Weights are
converted file by file, so that memory holds one file of them.
"""

from __future__ import annotations

import fnmatch
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmstages.convert.weight_files import INDEX, ONE_FILE, opened
from llmstages.core.atomic import follow_umask
from llmstages.core.errors import StageError

FLOAT_DTYPES = ("bfloat16", "float16", "float32")
ADAPTER = "adapter"  # folder of the adapter alone, in the artifact of a step that kept it
WEIGHTS = ("model*.safetensors", INDEX)
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "additional_chat_templates/*",
)
MODEL = ("config.json", "generation_config.json", "*.py", "LICENSE*", "NOTICE*", "*.license")
CARD = "README.md"
SHOWN_NAMES = 6
Advance = Callable[[float], None]


def files_of_model(folder: Path) -> tuple[list[Path], list[Path]]:
    """(files of the model, other files), relative to the folder."""
    belonging, others = [], []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(folder)
        matches = any(
            fnmatch.fnmatchcase(name.as_posix(), pattern)
            for pattern in (*MODEL, *TOKENIZER, *WEIGHTS)
        )
        (belonging if matches else others).append(name)
    return belonging, others


def export_folder(
    source: Path,
    target: Path,
    dtype: str = "",
    *,
    say: Callable[[str], None] = lambda line: None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Write the model or the tokenizer of a folder as another folder.

    Args:
        source: a folder in the format of transformers; links in it are followed.
        target: a new folder.
        dtype: of the floating-point weights: bfloat16, float16 or float32; "" keeps each as it is.
        say: called with lines for people.
        advance: called with the share of the bytes that is written, in steps that sum to 1.

    Returns:
        ``files`` and ``bytes`` written, ``left_out`` (number of files of the run), ``dtype`` of
        the weights ("" for a tokenizer).

    Raises:
        StageError: there is no model in safetensors and no tokenizer, the type is unknown, or
            float16 cannot hold the numbers.
    """
    _check_dtype(dtype)
    belonging, left_out = files_of_model(source)
    _refuse_other(source, belonging)
    target.mkdir(parents=True)
    total = sum((source / name).stat().st_size for name in belonging)
    for name in belonging:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.suffix == ".safetensors" and dtype:
            _convert(source / name, path, dtype)
        else:
            shutil.copyfile(source / name, path)
        if advance:
            advance((source / name).stat().st_size / max(total, 1))
    written = _finish(target, dtype)
    follow_umask(target)
    if left_out:
        shown = ", ".join(str(name) for name in left_out[:SHOWN_NAMES])
        more = ", ..." if len(left_out) > SHOWN_NAMES else ""
        say(f"{len(left_out)} files are not part of the model and stay behind: {shown}{more}")
    files = [path for path in target.rglob("*") if path.is_file()]
    return {
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "left_out": len(left_out),
        "dtype": written,
    }


def export_adapter(source: Path, target: Path, base_model: str) -> dict[str, Any]:
    """Write the adapter that a step kept, with the tokenizer, as a folder for peft.

    Args:
        base_model: what the adapter was trained on, a name of the Hub or a path; it is written
            into ``adapter_config.json``, where peft looks for it.

    Raises:
        StageError: the step kept no adapter.
    """
    adapter = require_adapter(source)
    target.mkdir(parents=True)
    names = [path for path in sorted(adapter.iterdir()) if path.is_file() and path.name != CARD]
    belonging, _ = files_of_model(source)
    for pattern in TOKENIZER:
        names += [source / name for name in belonging if fnmatch.fnmatch(name.as_posix(), pattern)]
    for path in names:
        shutil.copyfile(path, target / path.name)
    config = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_model
    _write_json(target / "adapter_config.json", config)
    follow_umask(target)
    files = [path for path in target.iterdir() if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def require_adapter(source: Path) -> Path:
    """The folder of the adapter alone. Raises StageError where the step kept none."""
    adapter = source / ADAPTER
    if (adapter / "adapter_config.json").is_file():
        return adapter
    raise StageError(
        f"{source} has no adapter alone. Train with STEP.lora_r=16 STEP.keep_adapter=true, or "
        "leave --adapter out: the model has the adapter merged into its weights"
    )


def stored_dtype(folder: Path) -> str:
    """The type of most weights of a folder, such as bfloat16; "" where there are none."""
    counts: dict[str, int] = {}
    for path in folder.glob("model*.safetensors"):
        stream = opened(path)
        for name in stream.keys():  # noqa: SIM118 - not a dictionary
            part = stream.get_slice(name)
            elements = math.prod(part.get_shape())
            counts[part.get_dtype()] = counts.get(part.get_dtype(), 0) + elements
    if not counts:
        return ""
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    most = max(counts, key=counts.__getitem__)
    return names.get(most, most)


def has_template(folder: Path) -> bool:
    """Whether a tokenizer folder has a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return False
    return bool(json.loads(file.read_text(encoding="utf-8")).get("chat_template"))


def _check_dtype(dtype: str) -> None:
    if dtype and dtype not in FLOAT_DTYPES:
        raise StageError(
            f"a folder is not written as {dtype!r}; there are {', '.join(FLOAT_DTYPES)}. "
            "q8_0 is for --to FILE.gguf"
        )


def _refuse_other(source: Path, belonging: list[Path]) -> None:
    names = {name.as_posix() for name in belonging}
    if "config.json" in names and not names & {ONE_FILE, INDEX}:
        raise StageError(
            f"{source} has no weights in safetensors ({ONE_FILE} or {INDEX}); only these are "
            "exported"
        )
    if "config.json" not in names and "tokenizer_config.json" not in names:
        raise StageError(f"{source} is neither a model (config.json) nor a tokenizer")


def _convert(source: Path, target: Path, dtype: str) -> None:
    """One file of weights with its floating-point numbers in another type."""
    import torch
    from safetensors.torch import save_file

    wanted = getattr(torch, dtype)
    stream = opened(source)
    weights = {}
    for name in stream.keys():  # noqa: SIM118 - not a dictionary
        weight = stream.get_tensor(name)
        if weight.is_floating_point() and weight.dtype != wanted:
            converted = weight.to(wanted)
            if not torch.isfinite(converted).all() and torch.isfinite(weight).all():
                raise StageError(
                    f"{name} holds numbers above {torch.finfo(wanted).max:g}, the largest of "
                    f"{dtype}: choose --dtype bfloat16"
                )
            weight = converted
        weights[name] = weight
    save_file(weights, target, metadata=stream.metadata() or {"format": "pt"})


def _finish(target: Path, dtype: str) -> str:
    """Make the JSON files say what the weights are; returns the type of the weights."""
    if not (target / "config.json").exists():
        return ""
    written = dtype or stored_dtype(target)
    path = target / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = written
    config.pop("torch_dtype", None)  # the key of earlier versions
    config.pop("_name_or_path", None)
    # Training switches the cache off; with it generation is ten times faster.
    config["use_cache"] = True
    _write_json(path, config)
    index_path = target / INDEX
    if index_path.exists():
        index = json.loads(index_path.read_text(encoding="utf-8"))
        sizes = [file.stat().st_size for file in target.glob("model*.safetensors")]
        index.setdefault("metadata", {})["total_size"] = sum(sizes)
        _write_json(index_path, index)
    return written


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
