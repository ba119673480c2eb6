"""An artifact as the object that its library has for it, for notebooks and scripts.

Stages open artifacts with llmstages/data and llmstages/train instead, which know more of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError

TABLES = ("documents", "corpus", "dialogues", "preferences", "problems")


def open_artifact(kind: str, path: Path) -> Any:
    """The content of a finished folder.

    Returns:
        For documents, corpus, dialogues, preferences and problems a ``datasets.Dataset``; for a
        tokenizer, model or reward_model what transformers loads; for scores the dictionary task ->
        group -> model -> metric -> value; for a report its claims.

    Raises:
        StageError: a kind of another package, which only that package can open.
    """
    if kind in TABLES:
        import datasets

        return datasets.load_from_disk(path / "data")
    if kind == "scores":
        return json.loads((path / "scores.json").read_text(encoding="utf-8"))
    if kind == "report":
        return json.loads((path / "claims.json").read_text(encoding="utf-8"))
    if kind in ("tokenizer", "model", "reward_model"):
        return _from_transformers(kind, path)
    raise StageError(
        f"llmstages cannot open an artifact of the kind {kind!r}; its files are in {path}"
    )


def _from_transformers(kind: str, path: Path) -> Any:
    import transformers

    classes = {
        "tokenizer": transformers.AutoTokenizer,
        "model": transformers.AutoModelForCausalLM,
        "reward_model": transformers.AutoModelForSequenceClassification,
    }
    return classes[kind].from_pretrained(path)
