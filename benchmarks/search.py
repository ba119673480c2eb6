"""Search indexes side by side: do they find the page, how fast, and at what size.

    python benchmarks/search.py                      # docs of installed packages, 200 questions
    python benchmarks/search.py --passages 100000    # times at that size; more text is read
    python benchmarks/search.py --pages a.jsonl      # own pages: objects with text (and url)

The questions are made by rule, with a fixed seed, and not chosen by what an engine finds. For each,
a page is drawn, then one of its sentences that no other page holds and that has at least ten
different words of four letters or more, without digits. A long question has eight of these words,
in their order, after "What do the docs say about"; a short one has four of the eight, drawn at
random. In an inflected question every word gets an s, or loses it. No word is left out for being
common. Pages that differ only in details (copies of a library inside another) stay in: their
questions are among the misses.

recall@k: the page of the sentence is that of one of the k best passages. MRR is over the first ten.
Times are those of one thread; only those of one run can be compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
WORD = re.compile(r"\b[A-Za-z]{4,}\b")
LONG, SHORT = 8, 4  # words of a question
LEAST_WORDS = 10  # of a sentence that is asked about
ENGINES: dict[str, dict[str, Any]] = {
    "fts5, words as they are": {"use": "fts5", "language": "none"},
    "fts5": {"use": "fts5"},
    "tantivy": {"use": "tantivy"},
}
TOP = 10
SETS = ("long", "long inflected", "short", "short inflected")


@dataclass(frozen=True)
class Question:
    """Words of one sentence, and the page that holds it."""

    long: str
    short: str
    page: str

    def text(self, name: str) -> str:
        """The question of a set of SETS."""
        words = self.long if name.startswith("long") else self.short
        if name.endswith("inflected"):
            words = " ".join(inflected(word) for word in words.split())
        return f"What do the docs say about {words}?"


def main() -> None:
    """Build, ask, print."""
    args = parse_arguments()
    pages = list(read_pages(args))
    questions = make_questions(pages, args.questions, args.seed)
    characters = sum(len(page.text) for page in pages)
    print(
        f"{len(pages)} pages, {characters / 1e6:.1f} million characters, {len(questions)} questions"
        f" (seed {args.seed}); for example:"
    )
    for question in questions[:3]:
        print(f"  {question.text('long')}\n  {question.text('short inflected')}")
    for name, spec in ENGINES.items():
        if spec["use"] == "tantivy" and importlib.util.find_spec("tantivy") is None:
            print(f"{name}: not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            measure(name, spec, Path(folder) / "index", pages, questions, args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=Path, help="JSON lines with text and, if there is one, url")
    parser.add_argument(
        "--megabytes", type=float, default=10, help="text of installed packages (default 10)"
    )
    parser.add_argument(
        "--passages", type=int, default=0, help="read as many pages as give this many passages"
    )
    parser.add_argument("--questions", type=int, default=200, help="questions (default 200)")
    parser.add_argument("--characters", type=int, default=600, help="of a passage (default 600)")
    parser.add_argument("--overlap", type=int, default=0, help="of passages (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the questions (default 0)")
    return parser.parse_args()


def read_pages(args: argparse.Namespace) -> Iterator[Any]:
    """The pages; as many as give the passages asked for."""
    from llmstages.data.passages import Page, spans

    passages = 0
    for text, url in page_texts(args):
        yield Page(text, url)
        if args.passages:
            passages += sum(1 for _ in spans(text, args.characters, args.overlap))
            if passages >= args.passages:
                return
    if passages < args.passages:
        raise SystemExit(f"the pages have only {passages} passages; ask for fewer, or give --pages")


def page_texts(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(text, address) of each page."""
    if args.pages:
        for line in args.pages.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield row["text"], row.get("url") or ""
        return
    from texts import texts

    # A passage has some 450 characters, since it ends with a sentence.
    needed = args.passages * args.characters if args.passages else args.megabytes * 1e6
    for text in texts(int(needed)):
        yield text, ""


def make_questions(pages: Sequence[Any], count: int, seed: int) -> list[Question]:
    """Questions about different pages. See the top of this file for the rule."""
    rng = random.Random(seed)
    holders: defaultdict[str, set[str]] = defaultdict(set)
    sentences: dict[str, list[str]] = {}
    for page in pages:
        sentences[page.id] = SENTENCE.split(page.text)
        for sentence in sentences[page.id]:
            holders[normal(sentence)].add(page.id)
    order = sorted(sentences)
    rng.shuffle(order)
    questions = []
    for page in order:
        own = [
            words
            for sentence in sentences[page]
            if len(holders[normal(sentence)]) == 1 and not re.search(r"\d", sentence)
            if len(words := words_of(sentence)) >= LEAST_WORDS
        ]
        if not own:
            continue
        words = rng.choice(own)
        chosen = sorted(rng.sample(range(len(words)), LONG))
        short = sorted(rng.sample(chosen, SHORT))
        questions.append(
            Question(" ".join(words[i] for i in chosen), " ".join(words[i] for i in short), page)
        )
        if len(questions) == count:
            return questions
    raise SystemExit(f"the pages give only {len(questions)} questions; ask for fewer")


def normal(sentence: str) -> str:
    return " ".join(sentence.lower().split())


def words_of(sentence: str) -> list[str]:
    """The different words of a sentence, in order."""
    return list(dict.fromkeys(word.lower() for word in WORD.findall(sentence)))


def inflected(word: str) -> str:
    """A word with an s, or without it."""
    if word.endswith("s"):
        return word[:-1]
    return word if word.endswith("x") else word + "s"


def measure(
    name: str,
    spec: dict[str, Any],
    folder: Path,
    pages: Sequence[Any],
    questions: Sequence[Question],
    args: argparse.Namespace,
) -> None:
    """Build one index, ask it everything, and print a block."""
    from llmstages.plugins.tools import index

    start = time.perf_counter()
    counts = index.build(folder, pages, spec, args.characters, args.overlap)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    opened = index.Index(folder)
    print(
        f"\n{name}: {counts['passages']} passages of {counts['pages']} pages, built in "
        f"{seconds:.1f} s, {size / 1e6:.1f} MB on disk"
    )
    for kind in SETS:
        ranks, times = [], []
        for question in questions:
            start = time.perf_counter()
            found = opened.search(question.text(kind), TOP)
            times.append((time.perf_counter() - start) * 1000)
            found_pages = [passage.id.partition(":")[0] for passage in found]
            ranks.append(
                found_pages.index(question.page) + 1 if question.page in found_pages else 0
            )
        shown = {k: sum(0 < rank <= k for rank in ranks) / len(ranks) for k in (1, 5)}
        mrr = sum(1 / rank for rank in ranks if rank) / len(ranks)
        p95 = statistics.quantiles(times, n=20)[-1]
        print(
            f"  {kind:15s} recall@1 {shown[1]:.3f}  recall@5 {shown[5]:.3f}  MRR {mrr:.3f}  "
            f"query {statistics.median(times):.2f} ms, p95 {p95:.2f} ms",
            flush=True,
        )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
