"""Inputs so small that a test can train on them: a tokenizer, a model, a table of each kind."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from llmstages.core.stage import Artifact
from llmstages.text.messages import message

TEXTS = (
    "The cat sat on the mat. The dog ran far away.",
    "Where does the fox live? The fox lives near the river.",
    "Bo Li was born in Ra. Bo Li works as a baker.",
    "12 + 34 = 46. 7 + 8 = 15.",
)
QUESTIONS = (
    ("Where does the fox live?", "near the river"),
    ("Where was Bo Li born?", "Ra"),
    ("What is 7 + 8?", "15"),
    ("What is 12 + 34?", "46"),
)
VOCABULARY = 400  # entries: 256 bytes, the control tokens of the chat template, some merges


@cache
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with the chat template ``chatml``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from llmstages.text import templates

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    templates.install(wrapped)
    wrapped.padding_side = "left"
    return wrapped


def tiny_artifact(kind: str, folder: Path) -> Artifact:
    """An artifact of a built-in kind, written to ``folder``.

    Args:
        kind: documents, corpus, tokenizer, model, reward_model, dialogues, preferences, problems.
        folder: a new folder; its name is the name of the artifact.
    """
    folder.mkdir(parents=True)
    make = {
        "documents": _documents,
        "corpus": _corpus,
        "tokenizer": _tokenizer,
        "model": _model,
        "reward_model": _reward_model,
        "dialogues": _dialogues,
        "preferences": _preferences,
        "problems": _problems,
    }
    if kind not in make:
        raise ValueError(f"there is no tiny artifact of kind {kind!r}; there are {', '.join(make)}")
    make[kind](folder)
    return Artifact(folder.name, kind, folder, f"tiny-{kind}")


def _documents(folder: Path) -> None:
    from llmstages.data import tables

    rows = []
    for number, text in enumerate(TEXTS):
        url = f"https://example.org/{number}"
        body = f"<html><body><article><p>{text}</p></article></body></html>"
        rows.append({"id": str(number), "url": url, "body": body.encode(), "media": "text/html"})
    tables.save(rows, folder / "data")


def _corpus(folder: Path) -> None:
    from llmstages.data import tables

    rows = [
        {"id": str(number), "url": f"https://example.org/{number}", "text": text}
        for number, text in enumerate(TEXTS * 10)
    ]
    tables.save(rows, folder / "data")
    dropped = {"id": "x", "url": "", "rule": "", "value": "", "limit": "", "excerpt": ""}
    tables.save([dropped], folder / "dropped")
    (folder / "funnel.json").write_text("[]")


def _tokenizer(folder: Path) -> None:
    tiny_tokenizer().save_pretrained(folder)
    (folder / "view.json").write_text(json.dumps({"text": "", "tokens": []}))


def _sizes() -> dict[str, Any]:
    tokenizer = tiny_tokenizer()
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _model(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)
    LlamaForCausalLM(LlamaConfig(**_sizes())).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def _reward_model(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification, set_seed

    set_seed(0)
    config = LlamaConfig(**_sizes())
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def _dialogues(folder: Path) -> None:
    from llmstages.data import tables

    rows = [
        {"messages": [message("user", question), message("assistant", answer)]}
        for question, answer in QUESTIONS * 4
    ]
    tables.save(rows, folder / "data")


def _preferences(folder: Path) -> None:
    from llmstages.data import tables

    rows = [
        {
            "prompt": [message("user", question)],
            "chosen": [message("assistant", f"{answer}, my friend.")],
            "rejected": [message("assistant", f"Why ask? {answer}.")],
        }
        for question, answer in QUESTIONS * 4
    ]
    tables.save(rows, folder / "data")


def _problems(folder: Path) -> None:
    from llmstages.data import tables

    tables.save([*problem_rows("train"), *problem_rows("test")], folder / "data")


def problem_rows(role: str = "test") -> list[dict[str, Any]]:
    """The rows of a problems artifact, one for each question.

    role: "train" rows are for RL, "test" rows for evaluation.
    """
    return [
        {
            "prompt": [message("user", question)],
            "answer": answer,
            "task": "facts",
            "group": "all",
            "meta": "{}",
            "role": role,
            "style": "chat",
        }
        for question, answer in QUESTIONS
    ]
