"""The quick encoder gives the ids of the tokenizer itself, for every pattern and model it takes, and says so where it takes none."""

from __future__ import annotations

import random
import unicodedata
from functools import cache

import pytest

from llmstages.plugins.tokenizer import bpe, unigram, wordpiece
from llmstages.text import encode, pretokenize
from tests.tiny import CONTROL, TEXTS

TRAIN = [
    *TEXTS,
    *encode.NASTY,
    *(
        "It's 12,345 years; they're GONE\n\n  def f():\n\treturn 'x'  # naïve 東京\r\n"
        for _ in range(30)
    ),
    *["user", "assistant", "system", "tool"] * 50,
]
KINDS = {
    **{
        f"bpe-{pattern}{'-digits' if digits else ''}": (
            bpe,
            bpe.BPEConfig(vocab_size=500, pattern=pattern, split_digits=digits),
        )
        for pattern in ("gpt2", "gpt4", "llama3")
        for digits in (True, False)
    },
    **{
        f"unigram-{pattern}": (unigram, unigram.UnigramConfig(vocab_size=700, pattern=pattern))
        for pattern in ("gpt2", "gpt4")
    },
}
PIECES = [
    *"  \t\n\r'’sStTdDmMlLvVrReEſ019٣²½ⅷaZéß.,!?-_/#<>|▁\u00a0\u2003\u2028\u0301\u200d\ufeff\x00\x1c東京한🙂",
    "'s",
    "'ll",
    "'RE",
    "  ",
    "\n\n",
    "\r\n",
    "\n ",
    " \n",
    "123",
    "12345",
    "don't",
    "...",
    "<|im_end|>",
    "<unk>",
    "<0x41>",
    " the",
    "The",
    "ab",
]


@cache
def made(kind):
    module, config = KINDS[kind]
    return module.build(TRAIN, config)


def drawn(seed, count=400, most=30):
    """Texts of pieces that are hard to cut, one after the other, and of any characters there are."""
    draw = random.Random(seed)
    texts = ["".join(draw.choices(PIECES, k=draw.randint(0, most))) for _ in range(count)]
    return texts + [
        "".join(
            c
            for c in map(
                chr,
                (
                    draw.choice(
                        (draw.randrange(0x250), draw.randrange(0x3000), draw.randrange(0x110000))
                    )
                    for _ in range(20)
                ),
            )
            if unicodedata.category(c) != "Cs"
        )
        for _ in range(count // 4)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_of_the_tokenizer(kind):
    tokenizer = made(kind)
    quick = encode.Encoder(tokenizer)
    texts = drawn(kind)
    wanted = encode.encode_plain(tokenizer, texts)
    for _ in range(2):  # from nothing, and from memory
        wrong = [
            (text, a, b)
            for text, a, b in zip(texts, quick.lists(texts), wanted, strict=True)
            if a != b
        ]
        assert not wrong, wrong[:3]
    assert quick.differs(texts) == ""


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_and_threads_change_nothing(monkeypatch, block):
    monkeypatch.setattr(encode, "BLOCK", block)
    tokenizer, texts = made("bpe-gpt4"), drawn(5, 60)
    assert encode.Encoder(tokenizer, threads=3).lists(texts) == encode.encode_plain(
        tokenizer, texts
    )


def test_a_full_memory_is_emptied(monkeypatch):
    monkeypatch.setattr(encode, "KEPT", 5)
    tokenizer = made("bpe-gpt2")
    quick = encode.Encoder(tokenizer)
    for seed in range(4):
        assert quick.lists(drawn(seed, 20)) == encode.encode_plain(tokenizer, drawn(seed, 20))


def test_words_are_cut_where_the_engine_cuts_them():
    from tokenizers import Regex, pre_tokenizers

    for expression, cut in (
        (pretokenize.GPT2, pretokenize.gpt2),
        (pretokenize.GPT4, lambda *a: pretokenize.gpt4(*a, group=3)),
        (pretokenize.QWEN, lambda *a: pretokenize.gpt4(*a, group=1)),
    ):
        engine = pre_tokenizers.Split(Regex(expression), "isolated")
        for text in drawn(expression, 200):
            if "\0" in text:
                continue
            found, first, last = pretokenize.words([text], False, cut)
            assert [w.decode() for w in found.to_pylist()[first[0] : last[0]]] == [
                w for w, _ in engine.pre_tokenize_str(text)
            ], repr(text)


def test_letters_without_case_are_all_found():
    for letter in "stmdrevl":
        high = "".join(chr(c) for c in range(0x3000, 0x110000) if not 0xD800 <= c < 0xE000)
        assert not pretokenize.matched(f"(?i:{letter})", high).any()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda t: setattr(t.backend_tokenizer, "normalizer", _normalizer("Lowercase")),
            "Lowercase",
        ),
        (lambda t: setattr(t.backend_tokenizer, "pre_tokenizer", _pre("Whitespace")), "Whitespace"),
    ],
)
def test_an_unknown_way_of_cutting_takes_the_plain_way_and_says_so(change, why):
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt2"][1])
    change(tokenizer)
    said = []
    assert encode.encoder(tokenizer, [], said.append) is None
    assert len(said) == 1 and why in said[0]
    assert encode.encoder(tokenizer, [], said.append) is None and len(said) == 1, "said once"
    long = ["Some text. " * 50_000]
    assert encode.encode(tokenizer, long) == encode.encode_plain(tokenizer, long)


def _normalizer(name):
    from tokenizers import normalizers

    return getattr(normalizers, name)()


def _pre(name):
    from tokenizers import pre_tokenizers

    return getattr(pre_tokenizers, name)()


def test_wordpiece_goes_the_plain_way():
    with pytest.raises(pretokenize.Unknown, match="BertNormalizer"):
        encode.Encoder(
            wordpiece.build(TRAIN, wordpiece.WordPieceConfig(vocab_size=800, alphabet=200))
        )


def test_ids_that_differ_are_found_out(monkeypatch):
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt2"][1])
    right = encode.Encoder.encode_words
    monkeypatch.setattr(
        encode.Encoder,
        "encode_words",
        lambda self, words: right(self, [w.replace(b"a", b"e") for w in words]),
    )
    said = []
    assert encode.encoder(tokenizer, ["banana"], said.append) is None
    assert "gives other ids" in said[0]


def test_added_tokens_keep_their_meaning():
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt4"][1])
    tokenizer.add_tokens(["<think>"])  # not special, so text may spell it
    texts = ["a <think>b</think> c", "no mark", "x" * 400_000, "<|im_start|>system " * 30_000]
    assert encode.encode(tokenizer, texts) == encode.encode_plain(tokenizer, texts)
    control = {tokenizer.convert_tokens_to_ids(mark) for mark in CONTROL}
    assert not control & {i for ids in encode.encode(tokenizer, texts) for i in ids}


def test_a_changed_tokenizer_is_looked_at_again():
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt2"][1])
    texts = ["bananas and more. " * 40_000]
    before = encode.encode(tokenizer, texts)
    tokenizer.add_tokens(["banana"])
    after = encode.encode(tokenizer, texts)
    assert after == encode.encode_plain(tokenizer, texts) != before


def test_lone_surrogates_are_replaced():
    assert encode.replace_surrogates("a\ud800b") == "a\ufffdb"
    assert encode.encode(made("bpe-gpt2"), ["a\ud800b"]) == encode.encode_plain(
        made("bpe-gpt2"), ["a\ufffdb"]
    )


def test_nothing_to_encode():
    quick = encode.Encoder(made("bpe-gpt2"))
    assert quick.lists([]) == []
    assert quick.lists(["", ""]) == [[], []]
    assert encode.encode(made("bpe-gpt2"), []) == []
