"""Memory of pretraining: what ``llmstages plan`` expects beside what the stage takes, on the CPU.

    python benchmarks/memory.py                         # four sizes, each in its own process
    python benchmarks/memory.py --sizes 256x2048x16     # WIDTHxENTRIESxROWS: width of the model, vocabulary, rows an update
    python benchmarks/memory.py --live                  # what tensors take at one time: malloc gives freed blocks back at once
    python benchmarks/memory.py --json                  # the last line for programs

Each process first trains a model of no size, so that every import and buffer is there; what it holds then is the
baseline. Then it runs pretrain.causal_lm for three updates with its evaluations and reads the kernel's own peak
(VmHWM, reset before). Both figures are above the baseline. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (
    "128x1024x16",
    "256x2048x8",
    "384x4096x4",
    "512x8192x4",
)  # tokens an update fall as the model grows: some seconds each
UPDATES = 3  # the second is the first with optimizer state


def main() -> None:
    """Make texts and tokenizers, measure every size, print."""
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
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--prepare", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        prepare(Path(args.prepare), sorted({int(size.split("x")[1]) for size in args.sizes}))
    elif args.one:
        print(json.dumps(one(args.one[0], Path(args.one[1]), args)))
    else:
        show(args)


def show(args: argparse.Namespace) -> None:
    """The table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        again([__file__, "--prepare", folder, "--sizes", *args.sizes])
        print(
            f"{'width':>6} {'entries':>8} {'rows':>5} {'parameters':>11} {'baseline':>9} {'estimate':>9} {'measured':>9} {'ratio':>6} {'time':>7}"
        )
        for size in args.sizes:
            more = ["--architecture", args.architecture, *(["--live"] if args.live else [])]
            told = json.loads(again([__file__, *more, "--one", size, folder]).splitlines()[-1])
            rows.append(told)
            print(
                f"{told['width']:6} {told['entries']:8} {told['rows']:5} {told['parameters']:11,} {told['baseline'] / 1e6:6.0f} MB "
                f"{told['estimate'] / 1e6:6.0f} MB {told['measured'] / 1e6:6.0f} MB {told['estimate'] / told['measured']:6.2f} {told['seconds']:5.1f} s",
                flush=True,
            )
    if args.json:
        print(json.dumps({"sizes": rows}))


def again(words: list[str]) -> str:
    """This program in a process of its own; with --live all but small blocks are mapped, and so unmapped when they are freed."""
    malloc = {"MALLOC_MMAP_THRESHOLD_": "131072"} if "--live" in words else {}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env={**os.environ, **malloc}
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def prepare(folder: Path, vocabularies: list[int]) -> None:
    """A corpus of made-up words, and a tokenizer of each size trained on it."""
    from llmstages.data import tables
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 10)))
        for _ in range(4000)
    ]
    texts = [" ".join(rng.choices(words, k=100)) for _ in range(240)]
    tables.save(
        [{"id": str(i), "url": "u", "text": text} for i, text in enumerate(texts)],
        folder / "corpus" / "data",
    )
    for entries in vocabularies:
        build([" " + text for text in texts], BPEConfig(vocab_size=entries)).save_pretrained(
            folder / f"tokenizer-{entries}"
        )


def one(size: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Estimate and measure one size."""
    from llmstages.cost.model import training_memory
    from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
    from llmstages.train.trainer import load_tokenizer

    width, entries, rows = map(int, size.split("x"))
    start = "plain" if args.architecture == "gpt2" else "copy_friendly"
    config = CausalLMConfig(
        architecture=args.architecture,
        start=start,
        hidden_size=width,
        num_attention_heads=width // 32,
        intermediate_size=3 * width,
        batch_size=rows,
        validation_stride=5,
        max_tokens=UPDATES * rows * 256,
    )
    train(
        CausalLMConfig(
            hidden_size=8,
            num_attention_heads=1,
            num_hidden_layers=1,
            intermediate_size=8,
            batch_size=1,
            row=16,
            validation_stride=600,
            max_tokens=16,
        ),
        entries,
        folder,
        "warm",
    )
    vocabulary = len(load_tokenizer(folder / f"tokenizer-{entries}"))
    gc.collect()
    baseline = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    began = time.perf_counter()
    metrics = train(config, entries, folder, "real")
    known = {
        "tokenizer": [{"name": "tokenizer", "vocab_size": vocabulary}],
        "corpus": [],
        "dialogues": [],
        "model": [],
    }
    work = CausalLM().estimate(config, known)["training"]
    return {
        "width": width,
        "entries": vocabulary,
        "rows": rows,
        "parameters": int(metrics["parameters"]),
        "baseline": baseline,
        "estimate": training_memory(work, cpu=True)["live" if args.live else "peak"],
        "measured": status("VmHWM") - baseline,
        "seconds": time.perf_counter() - began,
    }


def train(config: Any, entries: int, folder: Path, name: str) -> dict[str, float]:
    """Run the stage as the runner would, without a store."""
    from llmstages.core.stage import Artifact, Context
    from llmstages.plugins.pretrain.causal_lm import CausalLM

    with tempfile.TemporaryDirectory() as made:
        for part in ("out", "work"):
            (Path(made) / part).mkdir()
        corpus = Artifact("corpus", "corpus", folder / "corpus", "corpus")
        tokenizer = Artifact("tokenizer", "tokenizer", folder / f"tokenizer-{entries}", "tokenizer")
        inputs = {"corpus": (corpus,), "tokenizer": tokenizer, "dialogues": (), "model": None}
        return CausalLM().run(
            config,
            Context(name, Path(made) / "out", Path(made) / "work", inputs, cache=folder / "cache"),
        )


def status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
