"""Byte-level BPE: nothing is lost, control tokens are single ids, the view shows the bytes."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.tokenizer import bpe, measure
from llmstages.plugins.tokenizer.pretrained import Pretrained, PretrainedConfig
from llmstages.text import chat_format
from tests.tiny import CONTROL, ROLES, TEXTS, control_ids, perform, saved, tiny_tokenizer


def corpus(folder):
    return saved(
        folder / "corpus",
        "corpus",
        [{"id": str(i), "url": "u", "text": t} for i, t in enumerate(TEXTS)],
    )


def test_any_text_comes_back(tmp_path):
    made, metrics = perform(
        bpe.BPE,
        tmp_path / "tokenizer",
        bpe.BPEConfig(vocab_size=420),
        corpus=corpus(tmp_path),
        dialogues=(),
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made.path)
    for text in ("naïve 東京 🙂", "tab\tnew\nline", "a  b", "\x00\x7f"):
        assert chat_format.decode(tokenizer, chat_format.encode_texts(tokenizer, [text])[0]) == text
    assert metrics["round_trip_failures"] == 0
    for mark in (*CONTROL, *ROLES):
        assert len(tokenizer(mark, add_special_tokens=False)["input_ids"]) == 1, mark
    view = measure.view_text(tokenizer, "12é")["tokens"]
    assert [token["text"] for token in view][:3] == [" ", "1", "2"]
    view = measure.view_text(tokenizer, "é")["tokens"]
    shown_bytes = "".join(token["bytes"] for token in view).replace(" ", "")
    assert shown_bytes == " é".encode().hex()


def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path):
    with pytest.raises(StageError, match="256 bytes"):
        perform(
            bpe.BPE,
            tmp_path / "tokenizer",
            bpe.BPEConfig(vocab_size=100),
            corpus=corpus(tmp_path),
            dialogues=(),
        )


def test_an_empty_corpus_is_refused(tmp_path):
    from llmstages.data import tables

    folder = tmp_path / "corpus"
    folder.mkdir()
    tables.save([], folder / "data", columns=("id", "url", "text"))
    from llmstages.core.stage import Artifact

    with pytest.raises(StageError, match="corpus is empty"):
        perform(
            bpe.BPE,
            tmp_path / "tokenizer",
            bpe.BPEConfig(),
            corpus=Artifact("corpus", "corpus", folder, "x"),
            dialogues=(),
        )


def test_a_tokenizer_of_others_gets_the_control_tokens(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel()
    engine.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<eos>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    PreTrainedTokenizerFast(tokenizer_object=engine, eos_token="<eos>").save_pretrained(
        tmp_path / "foreign"
    )
    _, metrics = perform(
        Pretrained, tmp_path / "tokenizer", PretrainedConfig(folder=str(tmp_path / "foreign"))
    )
    assert metrics["added"] == len(CONTROL)
    with pytest.raises(StageError, match="no such folder"):
        perform(Pretrained, tmp_path / "other", PretrainedConfig(folder="./not-there"))


def test_texts_never_hold_control_ids():
    tokenizer = tiny_tokenizer()
    marks = set(control_ids(tokenizer).values())
    assert not marks & set(chat_format.encode_texts(tokenizer, [" ".join(CONTROL)])[0])
