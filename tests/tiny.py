"""A tokenizer and a model so small that tests can train them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from llmstages.core.stage import Artifact, Context
from llmstages.text.messages import message
from llmstages.text.templates import NAMED, ROLES

CONTROL = NAMED["chatml"].tokens()
__all__ = ["CONTROL", "ROLES"]

PAD, BOS, START, _, END = CONTROL[:5]
TALK = [
    message("user", "Where does the fox live?"),
    message("assistant", "The fox lives near the river."),
]
TEXTS = [
    "the cat sat on the mat. the dog ran far. Bo Li was born in Ra. " * 3,
    "Where does the fox live? The fox lives near the river. 12+34=46 ",
] * 20


@cache
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 400 tokens."""
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    roles = ["user", "assistant", "system", "tool"]
    return build([*TEXTS, *roles * 50], BPEConfig(vocab_size=400))


def control_ids(tokenizer: Any) -> dict[str, int]:
    """Control token -> id."""
    added = tokenizer.get_added_vocab()
    return {token: id for token, id in added.items() if token != tokenizer.unk_token}


def tiny_model(tokenizer: Any, hidden: int = 32) -> Any:
    """A random two-layer model, the same one each time."""
    from transformers import set_seed

    from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig

    set_seed(0)
    config = CausalLMConfig(
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
    )
    return CausalLM().fresh(config, tokenizer)


def perform(
    stage: type, folder: Path, config: Any, **inputs: Any
) -> tuple[Artifact, dict[str, float]]:
    """Run a stage as the runner would, without a store. Returns the artifact and the metrics.

    The lines that it printed are in ``perform.said``.
    """
    perform.said = []  # type: ignore[attr-defined]
    out, work = folder / "out", folder / "work"
    out.mkdir(parents=True)
    work.mkdir()
    said = perform.said  # type: ignore[attr-defined]
    context = Context(folder.name, out, work, inputs, say=said.append)
    metrics = stage().run(config, context)
    return Artifact(folder.name, stage.output, out, folder.name), dict(metrics)


def saved(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Artifact:
    """An artifact that holds a table."""
    from llmstages.data import tables

    folder.mkdir(parents=True, exist_ok=True)
    tables.save(rows, folder / "data")
    return Artifact(folder.name, kind, folder, folder.name)


def saved_model(folder: Path, hidden: int = 32) -> Artifact:
    """A random tiny model with its tokenizer."""
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer, hidden).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Artifact(folder.name, "model", folder, folder.name)
