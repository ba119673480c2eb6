"""Encoders side by side on the same documents: Hugging Face's own calls, llmstages, and others.

    python benchmarks/tokenizer.py                       # 32k BPE on texts of installed packages
    python benchmarks/tokenizer.py --text a.jsonl b.txt  # a JSON line or a file is a document
    python benchmarks/tokenizer.py --pattern gpt4 --rounds 7

tiktoken and gigatoken are measured where they are installed. All run in one process, in turn, round
after round; the table shows medians. "first" makes a new encoder in each round and so encodes every
word anew, "later" continues with what it remembers. Ids are compared document by document with
those of ``tokenizer(texts, add_special_tokens=False, split_special_tokens=True)``. Only ratios
within one run mean something.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

# The pre-tokenizers Digits and ByteLevel (with GPT-2's expression) as one expression.
DIGITS_AND_GPT2 = r"'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
BASELINE = "transformers: encode_batch_fast"


def main() -> None:
    """Train, encode, print."""
    args = parse_arguments()
    if args.text:
        documents = read_documents(args.text)
    else:
        from texts import texts

        documents = texts(int(args.megabytes * 1e6))
    size = total_bytes(documents)
    tokenizer = make_tokenizer(args, documents, size)
    if tokenizer.init_kwargs.get("leading_space"):
        documents = [text if text.startswith(" ") else " " + text for text in documents]
    measure(tokenizer, documents, args.rounds, size)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        default=[],
        help="txt, md or jsonl (a string, or an object with text); default: installed packages",
    )
    parser.add_argument(
        "--megabytes", type=float, default=32, help="encode at least this much (default 32)"
    )
    parser.add_argument(
        "--train-megabytes",
        type=float,
        default=10,
        help="train on every n-th document, about this much (default 10)",
    )
    parser.add_argument("--vocab-size", type=int, default=32768, help="entries (default 32768)")
    parser.add_argument(
        "--pattern",
        default="gpt2",
        choices=("gpt2", "gpt4", "llama3"),
        help="how words are cut (default gpt2, digits one by one; the others without that)",
    )
    parser.add_argument(
        "--kind", default="bpe", choices=("bpe", "unigram"), help="what is trained (default bpe)"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="folder of a tokenizer to use instead of training one"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds, the median counts (default 5)"
    )
    return parser.parse_args()


def total_bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def read_documents(paths: Sequence[Path]) -> list[str]:
    """Documents of files: each line of a jsonl file, or a whole text file."""
    documents = []
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix != ".jsonl":
            documents.append(text)
            continue
        for line in text.splitlines():
            if line.strip():
                row = json.loads(line)
                documents.append(row if isinstance(row, str) else row["text"])
    return documents


def make_tokenizer(args: argparse.Namespace, documents: Sequence[str], size: int) -> Any:
    """The tokenizer to measure: loaded from a folder, or trained on every n-th document."""
    if args.tokenizer:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(args.tokenizer)
    from llmstages.plugins.tokenizer import bpe, unigram

    options = {
        "vocab_size": args.vocab_size,
        "pattern": args.pattern,
        "split_digits": args.pattern == "gpt2",
    }
    sample = documents[:: max(1, round(size / 1e6 / args.train_megabytes))]
    spaced = (" " + text for text in sample)
    start = time.perf_counter()
    if args.kind == "bpe":
        tokenizer = bpe.build(spaced, bpe.BPEConfig(**options))
    else:
        tokenizer = unigram.build(spaced, unigram.UnigramConfig(**options))
    print(
        f"{args.kind} of {len(tokenizer):,} entries trained on {total_bytes(sample) / 1e6:.1f} MB "
        f"in {time.perf_counter() - start:.1f} s"
    )
    return tokenizer


def measure(tokenizer: Any, documents: list[str], rounds: int, size: int) -> None:
    """Run every encoder in turn and print medians."""
    from llmstages.text import encode

    expected = encode.encode_plain(tokenizer, documents)
    encoders = dict(make_encoders(tokenizer, documents))
    print(
        f"{len(documents):,} documents, {size / 1e6:.1f} MB, {sum(map(len, expected)):,} tokens; "
        f"{os.cpu_count()} cores, {rounds} rounds\n"
    )
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    equal: dict[str, int] = {}
    for _ in range(rounds):
        for name, encode_all in encoders.items():
            start = time.perf_counter()
            encoded = encode_all()
            seconds[name].append(time.perf_counter() - start)
            if name not in equal:
                pairs = zip(encoded, expected, strict=True)
                equal[name] = sum(list(ids) == row for ids, row in pairs)
            # Freed before the next encoder starts, so that none has less memory than another.
            del encoded
    baseline = statistics.median(seconds[BASELINE])
    print(f"{'encoder':44} {'MB/s':>7} {'spread':>13} {'ratio':>6}  equal ids")
    for name, times in seconds.items():
        median = statistics.median(times)
        slowest, fastest = size / 1e6 / max(times), size / 1e6 / min(times)
        print(
            f"{name:44} {size / 1e6 / median:7.1f} {slowest:6.1f}-{fastest:<6.1f} "
            f"{baseline / median:6.1f}  {equal[name]:,} of {len(expected):,}"
        )


def make_encoders(tokenizer: Any, documents: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, function that encodes all documents) of each encoder on this machine."""
    from llmstages.text import encode

    engine = tokenizer.backend_tokenizer

    def encode_batch_fast() -> list[list[int]]:
        # The tokenizer sets it too where split_special_tokens is asked for.
        engine.encode_special_tokens = True
        encodings = engine.encode_batch_fast(documents, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    yield BASELINE, encode_batch_fast
    yield "transformers: tokenizer(texts)", lambda: encode.encode_plain(tokenizer, documents)
    try:
        later = encode.FastEncoder(tokenizer)
    except encode.UnsupportedTokenizer as reason:
        print(f"llmstages has no fast encoder for this tokenizer: {reason}")
    else:
        later.arrays(documents)
        yield "llmstages, first, lists", lambda: encode.FastEncoder(tokenizer).lists(documents)
        yield "llmstages, first, arrays", lambda: encode.FastEncoder(tokenizer).arrays(documents)
        yield "llmstages, later, lists", lambda: later.lists(documents)
        yield "llmstages, later, arrays", lambda: later.arrays(documents)
    for name, make in (("tiktoken", make_tiktoken), ("gigatoken", make_gigatoken)):
        try:
            encode_with = make(tokenizer)
        except Exception as error:
            # Not installed, or unable to take this tokenizer: left out with the reason.
            print(f"without {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            yield (
                f"{name}, same vocabulary, lists",
                lambda encode_with=encode_with: encode_with(documents),
            )


def pre_tokenizer_expression(tokenizer: Any) -> str:
    """The pre-tokenizer as one regular expression; ValueError where that is not possible."""
    from llmstages.text import pretokenize

    spec = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    parts = spec.get("pretokenizers", [spec])
    types = [part["type"] for part in parts]
    if types == ["Digits", "ByteLevel"]:
        return DIGITS_AND_GPT2
    if types == ["ByteLevel"]:
        return pretokenize.GPT2
    if types == ["Split", "ByteLevel"]:
        return str(parts[0]["pattern"]["Regex"])
    raise ValueError("the pre-tokenizer is not a single expression")


def make_tiktoken(tokenizer: Any) -> Callable[[list[str]], Any]:
    import tiktoken

    from llmstages.text.token_view import byte_characters

    byte_of = byte_characters()
    control = set(tokenizer.get_added_vocab())
    ranks = {}
    for token, id in tokenizer.get_vocab().items():
        if token not in control:
            ranks[bytes(byte_of[character] for character in token)] = id
    encoding = tiktoken.Encoding(
        "same",
        pat_str=pre_tokenizer_expression(tokenizer),
        mergeable_ranks=ranks,
        special_tokens={},
    )
    threads = os.cpu_count() or 1
    return lambda texts: encoding.encode_ordinary_batch(texts, num_threads=threads)


def make_gigatoken(tokenizer: Any) -> Callable[[list[str]], Any]:
    import gigatoken

    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    split = {
        "type": "Split",
        "pattern": {"Regex": pre_tokenizer_expression(tokenizer)},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    spec["added_tokens"] = []
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    encoder = gigatoken.Tokenizer.from_json(json.dumps(spec))
    return lambda texts: encoder.encode_batch_list(texts)


if __name__ == "__main__":
    main()
