"""Short forms of what the tests of fine-tuning do again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmstages.core.stage import Artifact, Context
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.plugins.sft.dataset import PreparedChats
from llmstages.text import generate
from llmstages.text.messages import message
from llmstages.train.trainer import load_model, load_tokenizer
from tests.tiny import TALK, perform


def fine_tune(
    folder: Path, config: ChatConfig, model: Artifact, chats: Artifact
) -> tuple[Artifact, dict[str, float]]:
    return perform(Chat, folder, config, model=model, dialogues=(chats,), corpus=None)


def prepare(folder: Path, config: ChatConfig, model: Artifact, chats: Artifact) -> PreparedChats:
    inputs: dict[str, Any] = {"model": model, "dialogues": (chats,), "corpus": None}
    return Chat().prepare(config, Context("sft", folder, folder, inputs))


def answer(made: Artifact) -> generate.Reply:
    """What a fine-tuned model answers to the question of TALK."""
    net, tokenizer = load_model(made, None), load_tokenizer(made.path)  # type: ignore[arg-type]
    return generate.reply(net, tokenizer, [TALK[:1]], max_new_tokens=24)[0]


def numbered_dialogues(count: int) -> list[dict[str, Any]]:
    """Rows of different dialogues, of five different lengths."""
    rows = []
    for number in range(count):
        question = message("user", f"Where is {number}? " + "the cat sat. " * (number % 5))
        rows.append({"messages": [question, message("assistant", f"In {number + 1}.")]})
    return rows
