"""Encoders side by side on the same documents: Hugging Face's own calls, llmstages, and tiktoken and gigatoken where installed.

    python benchmarks/tokenizer.py                      # 32k BPE trained on what installed packages say about themselves
    python benchmarks/tokenizer.py --text a.jsonl b.txt  # your own: a JSON line or a file is a document
    python benchmarks/tokenizer.py --pattern gpt4 --rounds 7

All run in one process, in turn, round after round; the table shows medians. "first" makes a new encoder in each round and
so encodes every word anew, "later" goes on with what it remembers. Ids are compared document by document with those of
``tokenizer(texts, add_special_tokens=False, split_special_tokens=True)``. Only ratios within one run mean something.
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

ONE = r"'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"  # Digits and GPT-2's expression in one
BASE = "transformers: encode_batch_fast"


def main() -> None:
    """Train, encode, print."""
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
    args = parser.parse_args()
    documents = read(args.text) if args.text else _installed(int(args.megabytes * 1e6))
    size = sum(len(text.encode()) for text in documents)
    tokenizer = made(args, documents, size)
    if tokenizer.init_kwargs.get("leading_space"):
        documents = [text if text.startswith(" ") else " " + text for text in documents]
    run(tokenizer, documents, args.rounds, size)


def _installed(minimum: int) -> list[str]:
    from texts import texts

    return texts(minimum)


def read(paths: Sequence[Path]) -> list[str]:
    """Documents of files."""
    found = []
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        rows = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else [text]
        )
        found += [row if isinstance(row, str) else row["text"] for row in rows]
    return found


def made(args: argparse.Namespace, documents: Sequence[str], size: int) -> Any:
    """The tokenizer to measure."""
    if args.tokenizer:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(args.tokenizer)
    from llmstages.plugins.tokenizer import bpe, unigram

    part = documents[:: max(1, round(size / 1e6 / args.train_megabytes))]
    module, config = (
        (bpe, bpe.BPEConfig) if args.kind == "bpe" else (unigram, unigram.UnigramConfig)
    )
    start = time.perf_counter()
    tokenizer = module.build(
        (" " + text for text in part),
        config(
            vocab_size=args.vocab_size, pattern=args.pattern, split_digits=args.pattern == "gpt2"
        ),
    )
    print(
        f"{args.kind} of {len(tokenizer):,} entries trained on {sum(len(t.encode()) for t in part) / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s"
    )
    return tokenizer


def run(tokenizer: Any, documents: list[str], rounds: int, size: int) -> None:
    """Measure every encoder in turn and print medians."""
    from llmstages.text import encode

    wanted = encode.encode_plain(tokenizer, documents)
    others = dict(encoders(tokenizer, documents))
    print(
        f"{len(documents):,} documents, {size / 1e6:.1f} MB, {sum(map(len, wanted)):,} tokens; {os.cpu_count()} cores, {rounds} rounds\n"
    )
    seconds: dict[str, list[float]] = {name: [] for name in others}
    equal: dict[str, int] = {}
    for _ in range(rounds):
        for name, encode_all in others.items():
            start = time.perf_counter()
            ids = encode_all()
            seconds[name].append(time.perf_counter() - start)
            if name not in equal:
                equal[name] = sum(list(a) == b for a, b in zip(ids, wanted, strict=True))
            del ids
    base = statistics.median(seconds[BASE])
    print(f"{'encoder':44} {'MB/s':>7} {'spread':>13} {'ratio':>6}  equal ids")
    for name, took in seconds.items():
        middle = statistics.median(took)
        print(
            f"{name:44} {size / 1e6 / middle:7.1f} {size / 1e6 / max(took):6.1f}-{size / 1e6 / min(took):<6.1f} {base / middle:6.1f}  {equal[name]:,} of {len(wanted):,}"
        )


def encoders(tokenizer: Any, documents: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, a call that encodes all documents)."""
    from llmstages.text import encode

    engine = tokenizer.backend_tokenizer

    def fast() -> list[list[int]]:
        engine.encode_special_tokens = True  # as split_special_tokens does
        return [one.ids for one in engine.encode_batch_fast(documents, add_special_tokens=False)]

    yield BASE, fast
    yield "transformers: tokenizer(texts)", lambda: encode.encode_plain(tokenizer, documents)
    try:
        later = encode.FastEncoder(tokenizer)
    except encode.UnsupportedTokenizer as reason:
        print(f"llmstages has no quick way here: {reason}")
    else:
        later.arrays(documents)
        yield "llmstages, first, lists", lambda: encode.FastEncoder(tokenizer).lists(documents)
        yield "llmstages, first, arrays", lambda: encode.FastEncoder(tokenizer).arrays(documents)
        yield "llmstages, later, lists", lambda: later.lists(documents)
        yield "llmstages, later, arrays", lambda: later.arrays(documents)
    for name, make in (("tiktoken", _tiktoken), ("gigatoken", _gigatoken)):
        try:
            encode_with = make(tokenizer)
        except Exception as error:  # what is not installed, or cannot take this tokenizer, is left out with its reason
            print(f"without {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            yield (
                f"{name}, same vocabulary, lists",
                lambda encode_with=encode_with: encode_with(documents),
            )


def expression(tokenizer: Any) -> str:
    """The pre-tokenizer as one regular expression; ValueError where it is none."""
    from llmstages.text import pretokenize

    spec = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]
    parts = [
        {k: v for k, v in part.items() if k in ("type", "pattern", "use_regex")}
        for part in spec.get("pretokenizers", [spec])
    ]
    if [part["type"] for part in parts] == ["Digits", "ByteLevel"]:
        return ONE
    if [part["type"] for part in parts] == ["ByteLevel"]:
        return pretokenize.GPT2
    if [part["type"] for part in parts] == ["Split", "ByteLevel"]:
        return str(parts[0]["pattern"]["Regex"])
    raise ValueError("the pre-tokenizer is no single expression")


def _tiktoken(tokenizer: Any) -> Callable[[list[str]], Any]:
    import tiktoken

    from llmstages.text.token_view import byte_characters

    table, control = byte_characters(), set(tokenizer.get_added_vocab())
    ranks = {
        bytes(table[c] for c in token): id
        for token, id in tokenizer.get_vocab().items()
        if token not in control
    }
    made = tiktoken.Encoding(
        "same", pat_str=expression(tokenizer), mergeable_ranks=ranks, special_tokens={}
    )
    return lambda texts: made.encode_ordinary_batch(texts, num_threads=os.cpu_count() or 1)


def _gigatoken(tokenizer: Any) -> Callable[[list[str]], Any]:
    import gigatoken

    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    split = {
        "type": "Split",
        "pattern": {"Regex": expression(tokenizer)},
        "behavior": "Isolated",
        "invert": False,
    }
    whole = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    spec = {
        **spec,
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, whole]},
    }
    made = gigatoken.Tokenizer.from_json(json.dumps(spec))
    return lambda texts: made.encode_batch_list(texts)


if __name__ == "__main__":
    main()
