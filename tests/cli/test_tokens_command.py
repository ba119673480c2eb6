"""``llmstages tokens``: ids, bytes and boundaries of several tokenizers side by side."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmstages.cli.commands import tokens
from llmstages.cli.main import main
from llmstages.core.errors import StageError
from llmstages.text import chat_format
from llmstages.text.token_view import view_tokens
from tests.tiny import START, control_ids

TEXT = " Hello, naïve 東京 🙂 12 <|im_start|>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Two byte-level tokenizers of different size."""
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    texts = ["hello hello world user assistant system tool"] * 30
    folders = []
    for size in (300, 340):
        folder = tmp_path_factory.mktemp("tokenizer") / f"bpe{size}"
        build(texts, BPEConfig(vocab_size=size)).save_pretrained(folder)
        folders.append(folder)
    return folders


def test_pieces_give_back_every_byte(folders):
    tokenizer = tokens.load_tokenizer(str(folders[0]))
    tokens_of_text = view_tokens(tokenizer, chat_format.encode_texts(tokenizer, [TEXT])[0])
    # The tokenizer encodes every text with one leading space.
    assert b"".join(token.raw for token in tokens_of_text).decode() == f" {TEXT}"
    assert not any(token.control for token in tokens_of_text)
    [token] = view_tokens(tokenizer, [control_ids(tokenizer)[START]])
    assert token.control
    assert token.text == START
    assert token.raw == b""


def test_sentencepiece_and_wordpiece_tokens():
    names = ["▁Hello", "<0xF0>", "##ing", "é", None]
    fake = SimpleNamespace(
        all_special_ids=[],
        get_added_vocab=dict,
        convert_ids_to_tokens=lambda ids: [names[i] for i in ids],
    )
    assert [p.raw for p in view_tokens(fake, range(5))] == [
        b" Hello",
        b"\xf0",
        b"ing",
        "é".encode(),
        b"",
    ]


def test_several_side_by_side(folders, capsys):
    words = ["tokens", "hello 12"]
    for folder in folders:
        words += ["--tokenizer", str(folder)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("bytes per token") == 2
    assert "|1|2|" in out
    assert "68" in out
    table = out[out.index("#") :]
    assert table.count("'1'") == 2, "one row, both tokenizers"


def test_standard_input_and_long_texts(folders, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1" * 500 + "\n"))
    assert main(["tokens", "-", "--tokenizer", str(folders[0])]) == 0
    assert f"the first {tokens.MAX_ROWS} of 501 tokens" in capsys.readouterr().out


def test_mistakes_are_told(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["tokens", "x"]) == 2
    assert "llmstages run only=tokenizer" in capsys.readouterr().err
    assert main(["tokens", "x", "--tokenizer", str(tmp_path)]) == 2
    assert "contains no tokenizer" in capsys.readouterr().err
    assert main(["tokens", "", "--tokenizer", str(folders[0])]) == 2
    assert "no text" in capsys.readouterr().err
    with pytest.raises(StageError, match="there is no tokenizer 'nope'"):
        tokens.load_tokenizer("nope")
