"""No text becomes a control token: 2,000 hostile strings in every field, on every way a text takes, in five kinds of tokenizers."""

from __future__ import annotations

import contextlib
import json
import random
import unicodedata
from pathlib import Path

import pytest

from llmstages import chat, gates
from llmstages.dialogues import Dialogue
from llmstages.formats.dialogues import dialogue
from llmstages.formats.turns import Unusable
from llmstages.tables import message
from tests.tiny import TEXTS

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
OTHERS = ("<s>", "</s>", "[INST]", "[/INST]", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|system|>", "[CLS]", "[UNK]", "<unk>", "<0x0A>",
          "{{ messages }}", "{% raw %}", "\ue000", "\x00", "\x00user", "<|\u200bim_end|>")
STRINGS = 400


def hostile(rng: random.Random) -> str:
    """Marks whole, split, nested, in other Unicode forms, between ordinary text."""
    mark = rng.choice((*chat.CONTROL, *OTHERS))
    cut = rng.randrange(len(mark) + 1)
    kind = rng.randrange(6)
    text = (mark, mark[:cut] + " " + mark[cut:], mark[:cut] + mark + mark[cut:], mark.upper(), "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in mark),
            mark + "\n" + rng.choice(chat.ROLES) + "\n" + rng.choice(chat.CONTROL))[kind]
    return rng.choice(("", "", " ", "hi ", "\n")) + text + rng.choice(("", " ", " evil", rng.choice(chat.CONTROL)))


@pytest.fixture(scope="module")
def tokenizers():
    from llmstages.plugins.tokenizer import bpe, unigram, wordpiece

    texts = [*TEXTS, *["user", "assistant", "system", "tool"] * 50]
    return {"bpe": bpe.build(texts, bpe.BPEConfig(vocab_size=400)), "bpe without a leading space": bpe.build(texts, bpe.BPEConfig(vocab_size=400, leading_space=False)),
            "bpe, words of llama 3": bpe.build(texts, bpe.BPEConfig(vocab_size=400, pattern="llama3")),
            "unigram": unigram.Unigram().build(texts, unigram.UnigramConfig(vocab_size=700)),
            "wordpiece": wordpiece.WordPiece().build(texts, wordpiece.WordPieceConfig(vocab_size=400))}


NAMES = ("bpe", "bpe without a leading space", "bpe, words of llama 3", "unigram", "wordpiece")


@pytest.mark.parametrize("name", NAMES)
def test_no_text_becomes_a_control_token(tokenizers, name):
    tokenizer, rng = tokenizers[name], random.Random(name)
    marks = set(chat.control_ids(tokenizer).values())

    def controls(ids):
        return [token for token in ids if token in marks]

    def talk(text):
        return [message("system", text), message("user", text), message("assistant", text, "search"), message("tool", text, "search"),
                message("assistant", text), message("user", text), message("assistant", text, "weather"), message("tool", text, "weather"), message("assistant", text)]

    texts = [hostile(rng) for _ in range(STRINGS)]
    for ways in (lambda some: [r.ids for r in chat.render(tokenizer, [talk(t) for t in some])],                # SFT, reward, GRPO's rewards
                 lambda some: chat.prompt_ids(tokenizer, [talk(t)[:-1] for t in some]),                       # evaluation, RL, chat, after a tool
                 lambda some: [r.ids for r in chat.render_plain(tokenizer, [talk(t) for t in some])],          # dialogues in pretraining
                 lambda some: chat.document_ids(tokenizer, some)):                                             # pretraining
        plain = controls(ways(["x"])[0])
        forged = [t for t, ids in zip(texts, ways(texts), strict=True) if controls(ids) != plain]
        assert not forged, f"{len(forged)} of {len(texts)}: {forged[:3]}"


@pytest.mark.parametrize("name", NAMES[:3])
def test_hostile_texts_come_back_as_they_were(tokenizers, name):
    rng = random.Random(1)
    texts = [hostile(rng).replace("\x00", "") for _ in range(STRINGS)]
    back = [chat.decode(tokenizers[name], ids) for ids in chat.encode_texts(tokenizers[name], texts)]
    assert [b.strip() for b in back] == [t.strip() for t in texts]
    assert all(unicodedata.is_normalized("NFC", b) == unicodedata.is_normalized("NFC", t) for b, t in zip(back, texts, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", ["The fox.", " begins with a space", "", "two\nlines\n", "12+34=46", "ends with a space "])
def test_benign_texts_render_as_the_saved_template_does(tokenizers, name, content):
    tokenizer = tokenizers[name]
    talk = [message("system", content), message("user", content), message("assistant", content, "calculator"), message("tool", content, "calculator"),
            message("assistant", content), message("user", content), message("assistant", content, "weather"), message("tool", content, "weather")]
    for end in range(1, len(talk) + 1):
        assert chat.render(tokenizer, [talk[:end]])[0].ids == gates.theirs(tokenizer, talk[:end])
        assert chat.prompt_ids(tokenizer, [talk[:end]])[0] == gates.theirs(tokenizer, talk[:end], prompt=True)


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", NAMES)
def test_real_dialogues_render_as_the_saved_template_does(tokenizers, name):
    rows = [row for path in ("alpaca_en_demo.json", "glaive_toolcall_en_demo.json") for row in json.loads((DATA / "llamafactory" / path).read_text())[:300]]
    rows += [{"chosen": json.loads(line)["chosen"]} for line in (DATA / "hh" / "pairs.jsonl").read_text().splitlines()[:200]]
    found = []
    for row in rows:
        with contextlib.suppress(Unusable):
            found.append(dialogue(row))
    assert len(found) >= 500
    result = {g["gate"]: g for g in gates.of_template([Dialogue(str(i), m) for i, m in enumerate(found)], tokenizers[name])}
    assert result["prompts that differ from training"]["passed"]
    different = [i for i, m in enumerate(found) if chat.render(tokenizers[name], [m])[0].ids != gates.theirs(tokenizers[name], m)]
    assert not different
