"""llmstages tokens: ids, bytes and boundaries of several tokenizers, and the pieces they come from."""

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

    out = []
    for size in (300, 340):
        folder = tmp_path_factory.mktemp("tokenizer") / f"bpe{size}"
        build(
            ["hello hello world user assistant system tool"] * 30, BPEConfig(vocab_size=size)
        ).save_pretrained(folder)
        out.append(folder)
    return out


def test_pieces_give_back_every_byte(folders):
    tokenizer = tokens.load(str(folders[0]))
    found = view_tokens(tokenizer, chat_format.encode_texts(tokenizer, [TEXT])[0])
    assert b"".join(p.raw for p in found).decode() == TEXT and not any(p.control for p in found)
    marks = control_ids(tokenizer)
    (piece,) = view_tokens(tokenizer, [marks[START]])
    assert piece.control and piece.text == START and piece.raw == b""


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
    assert (
        main(["tokens", "hello 12", "--tokenizer", str(folders[0]), "--tokenizer", str(folders[1])])
        == 0
    )
    out = capsys.readouterr().out
    assert out.count("bytes a token") == 2 and "|1|2|" in out and "68" in out
    table = out[out.index("#") :]
    assert table.count("'1'") == 2, "one row, both tokenizers"


def test_standard_input_and_long_texts(folders, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1" * 500 + "\n"))
    assert main(["tokens", "-", "--tokenizer", str(folders[0])]) == 0
    assert f"the first {tokens.MOST} of 501 tokens" in capsys.readouterr().out


def test_mistakes_are_told(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["tokens", "x"]) == 2 and "llmstages run only=tokenizer" in capsys.readouterr().err
    assert (
        main(["tokens", "x", "--tokenizer", str(tmp_path)]) == 2
        and "holds no tokenizer" in capsys.readouterr().err
    )
    assert (
        main(["tokens", "", "--tokenizer", str(folders[0])]) == 2
        and "no text" in capsys.readouterr().err
    )
    with pytest.raises(StageError, match="there is no tokenizer 'nope'"):
        tokens.load("nope")
