"""A corpus and a tokenizer for all tests of pretraining."""

from __future__ import annotations

import pytest

from llmstages.core.stage import Artifact
from tests.tiny import TEXTS, saved, tiny_tokenizer


@pytest.fixture
def inputs(tmp_path):
    rows = [{"id": str(i), "url": "u", "text": f"{text} {i}"} for i, text in enumerate(TEXTS)]
    corpus = saved(tmp_path / "corpus", "corpus", rows)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return {
        "corpus": (corpus,),
        "dialogues": (),
        "tokenizer": Artifact("tokenizer", "tokenizer", tmp_path / "tokenizer", "t"),
        "model": None,
    }
