"""A run with models to talk to: a base model, a chat model with tools, and one without."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmstages.data import tables
from llmstages.pipeline import history
from llmstages.pipeline.api import run, step
from llmstages.text.messages import message

SMALL = {"epochs": 0.05, "warmup_steps": 1}


def make_run(here: Path) -> None:
    """Fill a folder with `store` and `runs`. The models babble; tests script their replies."""
    chats = here / "chats"
    tables.save(
        [{"messages": [message("user", "Who are you?"), message("assistant", "A model.")]}] * 8,
        chats / "data",
    )
    pages = step(
        "pages",
        "pages.world",
        {
            "frequent": 12,
            "medium": 8,
            "rare": 8,
            "unseen": 8,
            "frequent_articles": 2,
            "medium_articles": 1,
            "towns": 10,
            "questions": 1,
            "sums": 20,
            "direct_sums": 4,
            "stories": 10,
            "lists": 4,
            "proclamations": 1,
            "quotes": 2,
        },
    )
    corpus = here / "corpus"
    texts = [f"The cat number {number} sat on the mat." for number in range(40)]
    for name in ("data", "dropped"):
        tables.save([{"id": "1", "url": "", "text": text} for text in texts], corpus / name)
    tables.write_json(corpus / "funnel.json", [])
    tokenizer = step("tokenizer", "tokenizer.bpe", {"vocab_size": 300}, corpus=str(corpus))
    base = step(
        "base",
        "pretrain.causal_lm",
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 128,
            "max_length": 128,
            "max_tokens": 600,
        },
        corpus=[str(corpus)],
        tokenizer=tokenizer,
    )
    lookups = step("lookups", "dialogues.world_tools", {"strangers": 10, "sums": 10}, world=pages)
    tools = step("tools", "tools.search_tokens", dialogues=[lookups], pages=pages)
    questions = step(
        "questions",
        "problems.world_questions",
        {"per_group": 1, "probe": 2, "sums": 1, "few_shot": 1},
        world=pages,
    )
    helper = step(
        "helper",
        "sft.chat",
        {**SMALL, "allow_failed_checks": ["row_length"]},
        model=base,
        dialogues=[tools],
    )
    plain = step("plain", "sft.chat", SMALL, model=base, dialogues=[str(chats)])
    run(
        [pages, tokenizer, base, lookups, tools, questions, helper, plain],
        here / "store",
        runs=str(here / "runs"),
        name="tiny",
        quiet=True,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of such a run, made once for the tests of a module."""
    here = tmp_path_factory.mktemp("run")
    make_run(here)
    return here


@pytest.fixture
def last(made, monkeypatch) -> history.PastRun:
    """The run, in whose folder the test works."""
    monkeypatch.chdir(made)
    return history.last_run()
