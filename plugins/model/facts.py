"""What a model folder says about itself: read by ``plan`` from small JSON files, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.convert.hf_folder import has_template
from llmstages.core.errors import StageError
from llmstages.cost.model import Model, model_from_config

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


@dataclass(frozen=True)
class ModelFacts:
    """A causal language model by its config.

    Attributes:
        architecture: ``model_type`` of transformers, such as llama.
        parameters: None if the layers of the architecture are not known to cost/model.py.
        context: the longest sequence in tokens; 0 if the config does not say.
        vocab_size: rows of the embedding.
        dtype: of the saved weights, as a torch dtype by name.
        has_template: whether its tokenizer has a chat template.
        sizes: for estimates; None as for ``parameters``.
    """

    architecture: str
    parameters: int | None
    context: int
    vocab_size: int
    dtype: str
    has_template: bool
    sizes: Model | None

    def summary(self) -> str:
        """One line for people."""
        parts = [self.architecture]
        if self.parameters:
            parts.append(f"{self.parameters / 1e6:,.1f} M parameters")
        parts.append(f"vocabulary {self.vocab_size:,}")
        if self.context:
            parts.append(f"context {self.context:,} tokens")
        parts.append(self.dtype)
        if self.has_template:
            parts.append("with a chat template")
        else:
            parts.append("no chat template: choose one, for example sft.template=chatml")
        return ", ".join(parts)

    def estimate(self) -> dict[str, Any]:
        """What later steps count with (cost/plan.py)."""
        facts: dict[str, Any] = {"summary": self.summary(), "vocab_size": self.vocab_size}
        if self.sizes:
            facts["model"] = self.sizes
        return facts


def read_facts(folder: Path, where: str, tokenizer: Path | None = None) -> ModelFacts:
    """The facts of a model folder.

    Args:
        folder: a folder with a config.json.
        where: the option that names it, for messages.
        tokenizer: the folder of its tokenizer, if it is another one.

    Raises:
        StageError: the folder is not a causal language model with a tokenizer.
    """
    config = read_json(folder / "config.json", where)
    architecture = str(config.get("model_type") or "")
    classes = config.get("architectures") or []
    if config.get("is_encoder_decoder"):
        raise StageError(
            f"{where}={folder}: {architecture} is an encoder-decoder; the stages here train causal "
            "language models (decoders)"
        )
    if config.get("auto_map") and not architecture:
        raise StageError(
            f"{where}={folder}: the model needs code of its own (auto_map), which is never run; "
            "use a model whose architecture is a part of transformers"
        )
    if classes and not any("CausalLM" in name or "LMHead" in name for name in classes):
        raise StageError(
            f"{where}={folder}: config.json describes a {', '.join(classes)}, not a causal "
            "language model (...ForCausalLM)"
        )
    text_config = config.get("text_config") or {}
    sizes = {**text_config, **config}
    tokenizer_folder = tokenizer or folder
    require_tokenizer(tokenizer_folder, where)
    model = model_from_config(config)
    return ModelFacts(
        architecture=architecture or "unknown",
        parameters=model.parameters() if model else None,
        context=next((int(sizes[key]) for key in CONTEXT_KEYS if sizes.get(key)), 0),
        vocab_size=int(sizes.get("vocab_size") or 0),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        has_template=has_template(tokenizer_folder),
        sizes=model,
    )


def read_json(file: Path, where: str) -> Mapping[str, Any]:
    """The object in a JSON file of a model folder. Raises StageError if there is none."""
    if not file.is_file():
        raise StageError(
            f"{where}={file.parent}: there is no {file.name} in this folder, so it is not a model "
            "in the format of transformers. Name the folder that holds config.json, "
            "*.safetensors and the tokenizer, or a .gguf file"
        )
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{where}: {file} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise StageError(f"{where}: {file} holds a {type(value).__name__}, not an object")
    return value


def require_tokenizer(folder: Path, where: str) -> None:
    """Raise StageError if there is no tokenizer in the folder."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        step = where.rpartition(".")[0]
        raise StageError(
            f"{where}={folder}: there is no tokenizer in this folder "
            f"({', '.join(TOKENIZER_FILES[:2])}, ...). Save it there, or name its folder: "
            f"{step}.tokenizer=FOLDER"
        )
