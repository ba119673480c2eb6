"""Memory of pretraining on the CPU: what ``llmstages plan`` expects, beside what the stage takes.

    python benchmarks/memory.py                       # four sizes, each in its own process
    python benchmarks/memory.py --sizes 256x2048x16   # WIDTHxENTRIESxROWS
    python benchmarks/memory.py --live                # what tensors take at one time
    python benchmarks/memory.py --json                # the last line for programs

A size is the width of the model, the entries of its vocabulary, and the rows of an update. Each
process first trains a model of almost no size, so that every import and buffer is there; what it
holds then is the baseline. Then it runs pretrain.causal_lm for three updates with its evaluations
and reads the kernel's own peak (VmHWM, reset before). Both figures are above the baseline. With
--live malloc gives freed blocks back at once. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Tokens in an update fall as the model grows, so that each size takes only some seconds.
SIZES = ("128x1024x16", "256x2048x8", "384x4096x4", "512x8192x4")
UPDATES = 3  # the second is the first with optimizer state
ROW_TOKENS = 256  # the default of pretrain.causal_lm


def main() -> None:
    """Make texts and tokenizers, measure every size, print."""
    args = parse_arguments()
    if args.prepare:
        vocabularies = {int(size.split("x")[1]) for size in args.sizes}
        prepare(Path(args.prepare), sorted(vocabularies))
    elif args.one:
        size, folder = args.one
        print(json.dumps(measure(size, Path(folder), args)))
    else:
        print_table(args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=SIZES,
        metavar="WIDTHxENTRIESxROWS",
        help=f"default {' '.join(SIZES)}",
    )
    parser.add_argument(
        "--architecture", default="llama", choices=("llama", "qwen2", "gpt2"), help="default llama"
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="compare the live tensors, without what glibc's malloc keeps",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    # How this program calls itself in other processes.
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--prepare", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args()


def print_table(args: argparse.Namespace) -> None:
    """Measure each size in a process of its own, one line each."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        run_self(["--prepare", folder, "--sizes", *args.sizes])
        print(
            f"{'width':>6} {'entries':>8} {'rows':>5} {'parameters':>11} {'baseline':>9} "
            f"{'estimate':>9} {'measured':>9} {'ratio':>6} {'time':>7}"
        )
        options = ["--architecture", args.architecture]
        if args.live:
            options.append("--live")
        for size in args.sizes:
            output = run_self([*options, "--one", size, folder])
            result = json.loads(output.splitlines()[-1])
            results.append(result)
            ratio = result["estimate"] / result["measured"]
            print(
                f"{result['width']:6} {result['entries']:8} {result['rows']:5} "
                f"{result['parameters']:11,} {result['baseline'] / 1e6:6.0f} MB "
                f"{result['estimate'] / 1e6:6.0f} MB {result['measured'] / 1e6:6.0f} MB "
                f"{ratio:6.2f} {result['seconds']:5.1f} s",
                flush=True,
            )
    if args.json:
        print(json.dumps({"sizes": results}))


def run_self(arguments: list[str]) -> str:
    """The output of this program in a process of its own."""
    environment = dict(os.environ)
    if "--live" in arguments:
        # All but small blocks are then mapped, and so unmapped when they are freed.
        environment["MALLOC_MMAP_THRESHOLD_"] = "131072"
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def prepare(folder: Path, vocabularies: list[int]) -> None:
    """A corpus of made-up words, and a tokenizer of each size trained on it."""
    from llmstages.data import tables
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    rng = random.Random(0)
    words = []
    for _ in range(4000):
        words.append("".join(rng.choices(string.ascii_lowercase, k=rng.randint(4, 10))))
    texts = [" ".join(rng.choices(words, k=100)) for _ in range(240)]
    rows = [{"id": str(i), "url": "u", "text": text} for i, text in enumerate(texts)]
    tables.save(rows, folder / "corpus" / "data")
    for entries in vocabularies:
        tokenizer = build([" " + text for text in texts], BPEConfig(vocab_size=entries))
        tokenizer.save_pretrained(folder / f"tokenizer-{entries}")


def measure(size: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Estimate and measure one size; all figures of memory are in bytes."""
    from llmstages.cost.memory import training_memory
    from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
    from llmstages.train.trainer import load_tokenizer

    width, entries, rows = map(int, size.split("x"))
    config = CausalLMConfig(
        architecture=args.architecture,
        init="plain" if args.architecture == "gpt2" else "copy_friendly",
        hidden_size=width,
        num_attention_heads=width // 32,
        intermediate_size=3 * width,
        batch_size=rows,
        validation_stride=5,
        max_tokens=UPDATES * rows * ROW_TOKENS,
    )
    warm_up = CausalLMConfig(
        hidden_size=8,
        num_attention_heads=1,
        num_hidden_layers=1,
        intermediate_size=8,
        batch_size=1,
        max_length=16,
        validation_stride=600,
        max_tokens=16,
    )
    train(warm_up, entries, folder, "warm")
    vocabulary = len(load_tokenizer(folder / f"tokenizer-{entries}"))
    gc.collect()
    baseline = process_status("VmRSS")
    # Resets the peak.
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    metrics = train(config, entries, folder, "real")
    known = {
        "tokenizer": [{"name": "tokenizer", "vocab_size": vocabulary}],
        "corpus": [],
        "dialogues": [],
        "model": [],
    }
    training = CausalLM().estimate(config, known)["training"]
    memory = training_memory(training, cpu=True)
    return {
        "width": width,
        "entries": vocabulary,
        "rows": rows,
        "parameters": int(metrics["parameters"]),
        "baseline": baseline,
        "estimate": memory["live" if args.live else "peak"],
        "measured": process_status("VmHWM") - baseline,
        "seconds": time.perf_counter() - start,
    }


def train(config: Any, entries: int, folder: Path, name: str) -> dict[str, float]:
    """Run the stage as the runner would, without a store."""
    from llmstages.core.stage import Artifact, Context
    from llmstages.plugins.pretrain.causal_lm import CausalLM

    corpus = Artifact("corpus", "corpus", folder / "corpus", "corpus")
    tokenizer = Artifact("tokenizer", "tokenizer", folder / f"tokenizer-{entries}", "tokenizer")
    inputs = {"corpus": (corpus,), "tokenizer": tokenizer, "dialogues": (), "model": None}
    with tempfile.TemporaryDirectory() as scratch:
        out, work = Path(scratch) / "out", Path(scratch) / "work"
        out.mkdir()
        work.mkdir()
        ctx = Context(name, out, work, inputs, cache=folder / "cache")
        return dict(CausalLM().run(config, ctx))


def process_status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            kilobytes = int(line.split()[1])
            return kilobytes * 1024
    raise SystemExit(f"/proc/self/status has no {key}: this benchmark needs Linux")


if __name__ == "__main__":
    main()
