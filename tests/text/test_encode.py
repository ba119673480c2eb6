"""The fast path gives the ids of the tokenizer itself, for every pattern and model it supports.

Where it does not support a tokenizer, it says so.
"""

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
    *encode.PROBES,
    *(
        "It's 12,345 years; they're GONE\n\n  def f():\n\treturn 'x'  # naïve 東京\r\n"
        for _ in range(30)
    ),
    *["user", "assistant", "system", "tool"] * 50,
]
KINDS = {}
for pattern in ("gpt2", "gpt4", "llama3"):
    KINDS[f"bpe-{pattern}"] = bpe.BPEConfig(vocab_size=500, pattern=pattern, split_digits=False)
    KINDS[f"bpe-{pattern}-digits"] = bpe.BPEConfig(
        vocab_size=500, pattern=pattern, split_digits=True
    )
for pattern in ("gpt2", "gpt4"):
    KINDS[f"unigram-{pattern}"] = unigram.UnigramConfig(vocab_size=700, pattern=pattern)
PARTS = [
    *"  \t\n\r'’sStTdDmMlLvVrReEſ019٣²½ⅷaZéß.,!?-_/#<>|▁",
    *"\u00a0\u2003\u2028\u0301\u200d\ufeff\x00\x1c東京한🙂",
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
def trained(kind):
    module = bpe if kind.startswith("bpe") else unigram
    return module.build(TRAIN, KINDS[kind])


def drawn(seed, count=400, most=30):
    """Texts that are hard to split into words: of difficult parts, and of any characters."""
    rng = random.Random(seed)
    texts = ["".join(rng.choices(PARTS, k=rng.randint(0, most))) for _ in range(count)]
    texts += [random_characters(rng) for _ in range(count // 4)]
    return texts


def random_characters(rng, count=20):
    """Characters of Latin scripts, of other living scripts and of all Unicode."""
    text = ""
    for _ in range(count):
        codes = (rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x110000))
        character = chr(rng.choice(codes))
        if unicodedata.category(character) != "Cs":
            text += character
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_of_the_tokenizer(kind):
    tokenizer = trained(kind)
    fast = encode.FastEncoder(tokenizer)
    texts = drawn(kind)
    expected = encode.encode_plain(tokenizer, texts)
    for _ in range(2):  # with an empty cache, and with a full one
        triples = zip(texts, fast.lists(texts), expected, strict=True)
        wrong = [triple for triple in triples if triple[1] != triple[2]]
        assert not wrong, wrong[:3]
    assert fast.first_difference(texts) == ""


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_and_threads_change_nothing(monkeypatch, block):
    monkeypatch.setattr(encode, "BLOCK_CHARACTERS", block)
    tokenizer = trained("bpe-gpt4")
    texts = drawn(5, 60)
    fast_ids = encode.FastEncoder(tokenizer, threads=3).lists(texts)
    assert fast_ids == encode.encode_plain(tokenizer, texts)


def test_a_full_cache_is_emptied(monkeypatch):
    monkeypatch.setattr(encode, "MAX_WORDS", 5)
    tokenizer = trained("bpe-gpt2")
    fast = encode.FastEncoder(tokenizer)
    for seed in range(4):
        texts = drawn(seed, 20)
        assert fast.lists(texts) == encode.encode_plain(tokenizer, texts)


def test_words_are_split_where_the_engine_splits_them():
    from tokenizers import Regex, pre_tokenizers

    for expression, fix_starts in (
        (pretokenize.GPT2, pretokenize.gpt2_starts),
        (pretokenize.GPT4, lambda *a: pretokenize.gpt4_starts(*a, max_digits=3)),
        (pretokenize.QWEN, lambda *a: pretokenize.gpt4_starts(*a, max_digits=1)),
    ):
        engine = pre_tokenizers.Split(Regex(expression), "isolated")
        for text in drawn(expression, 200):
            if "\0" in text:
                continue
            words, first, last = pretokenize.split_words([text], False, fix_starts)
            fast_words = [word.decode() for word in words.to_pylist()[first[0] : last[0]]]
            expected = [word for word, _ in engine.pre_tokenize_str(text)]
            assert fast_words == expected, repr(text)


def test_letters_without_case_are_all_found():
    codes = [*range(0x3000, 0xD800), *range(0xE000, 0x110000)]
    high = "".join(map(chr, codes))
    any_letter = "|".join(f"(?i:{letter})" for letter in "stmdrevl")
    assert pretokenize.match_mask(any_letter, "a\u017fb").tolist() == [False, True, False]
    assert not pretokenize.match_mask(any_letter, high).any()


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
def test_an_unknown_way_of_splitting_takes_the_slow_path_and_says_so(change, why):
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt2"])
    change(tokenizer)
    lines = []
    assert encode.fast_encoder(tokenizer, [], lines.append) is None
    assert len(lines) == 1 and why in lines[0]
    assert encode.fast_encoder(tokenizer, [], lines.append) is None
    assert len(lines) == 1, "the message is printed once"
    long = ["Some text. " * 50_000]
    assert encode.encode(tokenizer, long) == encode.encode_plain(tokenizer, long)


def _normalizer(name):
    from tokenizers import normalizers

    return getattr(normalizers, name)()


def _pre(name):
    from tokenizers import pre_tokenizers

    return getattr(pre_tokenizers, name)()


def test_wordpiece_takes_the_slow_path():
    tokenizer = wordpiece.build(TRAIN, wordpiece.WordPieceConfig(vocab_size=800, alphabet=200))
    with pytest.raises(pretokenize.UnsupportedTokenizer, match="BertNormalizer"):
        encode.FastEncoder(tokenizer)


def test_ids_that_differ_are_found_out(monkeypatch):
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt2"])
    encode_words = encode.FastEncoder.encode_words
    monkeypatch.setattr(
        encode.FastEncoder,
        "encode_words",
        lambda self, words: encode_words(self, [word.replace(b"a", b"e") for word in words]),
    )
    lines = []
    assert encode.fast_encoder(tokenizer, ["banana"], lines.append) is None
    assert "gives other ids" in lines[0]


def test_added_tokens_keep_their_meaning():
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt4"])
    tokenizer.add_tokens(["<think>"])  # not special, so text may spell it
    texts = ["a <think>b</think> c", "no mark", "x" * 400_000, "<|im_start|>system " * 30_000]
    assert encode.encode(tokenizer, texts) == encode.encode_plain(tokenizer, texts)
    control = {tokenizer.convert_tokens_to_ids(mark) for mark in CONTROL}
    assert not control & {i for ids in encode.encode(tokenizer, texts) for i in ids}


def test_a_changed_tokenizer_is_looked_at_again():
    tokenizer = bpe.build(TRAIN, KINDS["bpe-gpt2"])
    texts = ["bananas and more. " * 40_000]
    before = encode.encode(tokenizer, texts)
    tokenizer.add_tokens(["banana"])
    after = encode.encode(tokenizer, texts)
    assert after == encode.encode_plain(tokenizer, texts) != before


def test_lone_surrogates_are_replaced():
    assert encode.replace_surrogates("a\ud800b") == "a\ufffdb"
    tokenizer = trained("bpe-gpt2")
    ids = encode.encode(tokenizer, ["a\ud800b"])
    assert ids == encode.encode_plain(tokenizer, ["a\ufffdb"])


def test_nothing_to_encode():
    tokenizer = trained("bpe-gpt2")
    fast = encode.FastEncoder(tokenizer)
    assert fast.lists([]) == []
    assert fast.lists(["", ""]) == [[], []]
    assert encode.encode(tokenizer, []) == []
