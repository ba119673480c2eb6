"""Every trained tokenizer: what it keeps of a text, its settings, its sample, and what it reports of itself."""

from __future__ import annotations

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.tokenizer import bpe, languages, measure, unigram, wordpiece
from llmstages.plugins.tokenizer.sample import Sample, words
from llmstages.text import chat_format
from tests.tiny import CONTROL, TALK, TEXTS, perform, saved

MORE = [
    "Prices rose by 1,234.50 euros, they're 2,000 now; don't panic!\n\n  indented text follows here.\n"
] * 20
KINDS = {
    "bpe": (bpe.BPE, bpe.BPEConfig(vocab_size=500)),
    "unigram": (unigram.Unigram, unigram.UnigramConfig(vocab_size=700)),
    "wordpiece": (wordpiece.WordPiece, wordpiece.WordPieceConfig(vocab_size=800, alphabet=200)),
}


def corpus(folder, texts=(*TEXTS, *MORE)):
    return saved(
        folder / "corpus",
        "corpus",
        [{"id": str(i), "url": "u", "text": t} for i, t in enumerate(texts)],
    )


def trained(folder, kind, **inputs):
    from transformers import AutoTokenizer

    stage, config = KINDS[kind] if isinstance(kind, str) else kind
    made, metrics = perform(
        stage,
        folder / "tokenizer",
        config,
        corpus=inputs.pop("corpus", None) or corpus(folder),
        dialogues=(),
        **inputs,
    )
    return AutoTokenizer.from_pretrained(made.path), made.path, metrics


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_twice_and_reports_of_itself(tmp_path, kind):
    tokenizer, folder, metrics = trained(tmp_path / "one", kind)
    _, again, _ = trained(tmp_path / "two", kind)
    for name in ("tokenizer.json", "report.json", "view.json"):
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    report = json.loads((folder / "report.json").read_text())
    assert metrics["injected"] == report["injection"]["control_ids"] == 0
    assert report["injection"]["texts"] >= 6 * len(CONTROL)
    assert set(report["samples"]) == set(languages.SAMPLES)
    assert 1 < report["bytes_per_token"] < 8
    assert report["languages"]["en"]["documents"] > 0
    assert 0 <= report["vocabulary"]["unused_share"] < 1
    assert report["words"]["looked_at"] > 20
    assert set(report["spelling"]) == set(languages.SPELT)
    assert all(len(chat_format.encode_texts(tokenizer, [text])[0]) < len(text) for text in TEXTS)
    assert all(
        tokenizer.convert_tokens_to_ids(mark) in tokenizer.all_special_ids for mark in CONTROL
    )


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_any_text_comes_back(tmp_path, kind):
    tokenizer, _, metrics = trained(tmp_path, kind)
    texts = [
        " " + text
        for text in (*measure.NASTY, *languages.SAMPLES.values(), *languages.SPELT.values())
    ]
    for text in texts:
        if kind == "unigram" and "▁" in text:  # comes back as a blank; told in its docstring
            continue
        assert tokenizer.decode(chat_format.encode_texts(tokenizer, [text])[0]) == text
    assert metrics["round_trip_failures"] == 0


def test_unigram_spells_what_its_own_pieces_look_like(tmp_path):
    tokenizer, _, _ = trained(tmp_path, "unigram")
    for text in ("<0x41>", "a <unk> b", "<0xE6><0x9D>"):
        ids = chat_format.encode_texts(tokenizer, [text])[0]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).strip() == text
    assert [
        tokenizer.convert_ids_to_tokens(i) for i in chat_format.encode_texts(tokenizer, ["東"])[0]
    ][-3:] == ["<0xE6>", "<0x9D>", "<0xB1>"]


def test_wordpiece_counts_what_it_loses(tmp_path):
    tokenizer, folder, _ = trained(tmp_path, "wordpiece")
    report = json.loads((folder / "report.json").read_text())
    assert report["odd_texts"]["failures"] > 0
    assert tokenizer.unk_token_id in chat_format.encode_texts(tokenizer, ["東京"])[0]
    assert tokenizer.convert_ids_to_tokens(chat_format.encode_texts(tokenizer, ["foxes"])[0])[
        -1
    ].startswith("##")


@pytest.mark.parametrize(
    ("config", "text", "tokens"),
    [
        (bpe.BPEConfig(split_digits=True), "1234", ["1", "2", "3", "4"]),
        (
            bpe.BPEConfig(vocab_size=700, split_digits=False, pattern="gpt4"),
            "123456",
            ["123", "456"],
        ),
        (bpe.BPEConfig(vocab_size=700, split_digits=False, pattern="gpt2"), "123456", [" 123456"]),
    ],
)
def test_how_numbers_are_cut(config, text, tokens):
    tokenizer = bpe.build(["a 123456 123 456 1234 b"] * 50, config)
    assert [t["text"] for t in bpe.view(tokenizer, text)["tokens"]][-len(tokens) :] == tokens


def test_the_longest_token_can_be_limited():
    tokenizer = bpe.build(["unbelievable " * 50] * 5, bpe.BPEConfig(max_token_length=4))
    assert max(len(token) for token in tokenizer.get_vocab() if token not in CONTROL) <= 4
    assert (
        max(
            len(token)
            for token in bpe.build(["unbelievable " * 50] * 5, bpe.BPEConfig()).get_vocab()
            if token not in CONTROL
        )
        > 10
    )


@pytest.mark.parametrize(
    ("kind", "size", "why"),
    [
        ("bpe", 200, "256 bytes"),
        ("unigram", 300, "94 letters"),
        ("wordpiece", 300, "200 characters"),
    ],
)
def test_a_vocabulary_without_room_is_refused(tmp_path, kind, size, why):
    import dataclasses as dc

    stage, config = KINDS[kind]
    with pytest.raises(StageError, match=why):
        trained(tmp_path, (stage, dc.replace(config, vocab_size=size)))


def test_what_is_at_hand_is_compared_with(tmp_path):
    _, other, metrics = trained(tmp_path / "other", "bpe")
    other_size = metrics["vocab_size"]
    config = unigram.UnigramConfig(
        vocab_size=700, compare=(str(other), "no/such", "tiktoken:no_such")
    )
    _, folder, _ = trained(tmp_path / "one", (unigram.Unigram, config))
    mine, theirs, *missing = json.loads((folder / "comparison.json").read_text())
    assert mine["name"] == "this one" and theirs["vocab_size"] == other_size
    assert mine["documents"]["bytes"] == theirs["documents"]["bytes"]
    assert [("not at hand" in one["missing"]) for one in missing] == [True, True]


def documents(count):
    return [
        {"id": str(i), "url": "u", "text": f"document {i} " + "word " * (i % 7)}
        for i in range(count)
    ]


@pytest.fixture
def tables_(tmp_path):
    docs, talks = (
        saved(tmp_path / "c", "corpus", documents(300)),
        saved(tmp_path / "d", "dialogues", [{"messages": TALK}] * 40),
    )
    return tables.load(docs.path / "data"), [tables.load(talks.path / "data")]


def test_little_text_is_used_whole_and_in_order(tables_):
    sample = Sample(*tables_, sample_bytes=10**9, seed=0)
    texts = list(sample)
    assert texts[:2] == ["document 0 ", "document 1 word "] and len(texts) == 300 + 40 * len(TALK)
    assert (
        sample.bytes == sample.total == sum(len(t.encode()) for t in texts) and not sample.held_out
    )


@pytest.mark.parametrize("most", [500, 3000])
def test_a_sample_keeps_to_its_bytes_and_its_seed(tables_, most):
    one, same, other = (Sample(*tables_, sample_bytes=most, seed=seed) for seed in (1, 1, 2))
    assert list(one) == list(same) != list(other)
    assert 0.7 * most < sum(len(t.encode()) for t in one) == one.bytes <= most
    assert any("fox" in t for t in one), "dialogues have their share"


def test_held_out_documents_are_measured_and_not_trained_on(tables_):
    sample = Sample(*tables_, sample_bytes=10**9, seed=0, test_fraction=0.2)
    assert len(sample.measured()) == 60 and sample.held_out
    assert not set(sample.measured()) & set(sample)


def test_a_sample_of_nothing_is_refused(tables_):
    with pytest.raises(StageError, match="max_bytes=3 is less than any document"):
        Sample(*tables_, sample_bytes=3, seed=0)


def test_text_without_blanks_is_warned_of(tmp_path):
    texts = [*TEXTS, "ACGT" * 1000]
    config = bpe.BPEConfig(vocab_size=500)
    trained(tmp_path, (bpe.BPE, config), corpus=corpus(tmp_path, texts))
    assert any("longest word before merging has 4,00" in line for line in perform.said)
    assert any("GB of memory" in line for line in perform.said)


def test_different_words_are_counted():
    spec = json.loads(bpe.build(TEXTS, bpe.BPEConfig()).backend_tokenizer.to_str())["pre_tokenizer"]
    found = words([" a b c a b"] * 10, spec, 10 * len(" a b c a b"))
    assert found.different == 3 and found.memory(1000) == 100_003_000
    assert words([" a b"], spec, 10_000).different > 2, "extrapolated to the whole"
