"""Speed of pretrain=causal_lm against a bare PyTorch loop: the same model, rows, optimizer and batch, in one process, in turns.

    python benchmarks/pretrain.py                             # the default model on a CPU; 124M in bfloat16 where there is a GPU
    python benchmarks/pretrain.py --row 1024 2048 --rounds 5  # one table row for each length of rows
    python benchmarks/pretrain.py --hidden 64 --layers 2 --heads 2 --intermediate 192 --updates 50

The loop is the best case: its batches are tensors before the clock starts, and it logs, checks and saves nothing. Neither
side's first update counts, nor do evaluation and saving of the stage. ratio is the median over pairs of stage / loop;
mfu is the share of the device's peak that the model's own FLOPs are (plugins/pretrain/throughput.py).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "row": [256],
    "batch_size": 4,
}
LARGE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 2048,
    "row": [1024, 2048],
    "batch_size": 16,
}


def main() -> None:
    """Measure and print."""
    import torch

    from llmstages.plugins.pretrain import throughput

    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (LARGE if gpu else SMALL).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=value,
            nargs="+" if isinstance(value, list) else None,
            help=f"default {value}",
        )
    parser.add_argument(
        "--updates",
        type=int,
        default=200,
        help="of each side in each round; the stage stops ten times to evaluate, and each time finds its caches cold (default 200)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="pairs, the median counts (default 5)"
    )
    parser.add_argument(
        "--vocab-size", type=int, default=32768 if gpu else 1024, help="entries of the tokenizer"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU time of this process instead of the wall's, for a machine that others share",
    )
    args = parser.parse_args()
    if args.cpu_time:
        throughput.clock = time.process_time
    with tempfile.TemporaryDirectory() as folder:
        for row in args.row:
            measure(args, row, Path(folder) / str(row), gpu)


def measure(args: argparse.Namespace, row: int, folder: Path, gpu: bool) -> None:
    """One length of rows: pairs of runs, and a line of the table."""
    from llmstages.plugins.pretrain import throughput
    from llmstages.plugins.pretrain.causal_lm import CausalLMConfig

    config = CausalLMConfig(
        hidden_size=args.hidden_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
        intermediate_size=args.intermediate_size,
        row=row,
        max_position_embeddings=max(512, row),
        batch_size=args.batch_size,
        start="plain",
        bf16=gpu,
        compile=args.compile,
        sample_every=0.0,
        epochs=100.0,
        max_tokens=args.updates * args.batch_size * row,
        learning_rate=6e-4 if gpu else 3e-3,
    )
    inputs = made(folder, args.vocab_size)
    pairs = []
    for turn in range(args.rounds):
        sides = {
            "stage": lambda turn=turn: stage(config, inputs, folder / f"{turn}-stage"),
            "loop": lambda turn=turn: loop(config, inputs, folder / f"{turn}-loop"),
        }
        results = {
            name: sides[name]() for name in sorted(sides, reverse=turn % 2 == 0)
        }  # who goes first changes
        ours, (plain, loss) = results["stage"], results["loop"]
        pairs.append((ours["tokens_per_second"], plain, ours["mfu"]))
        print(
            f"round {turn + 1}: stage {pairs[-1][0]:,.0f} tokens/s, loop {plain:,.0f}, ratio {pairs[-1][0] / plain:.3f} (loss of the loop {loss:.2f})",
            flush=True,
        )
    peak, source = throughput.peak(gpu)
    middle = [statistics.median(values) for values in zip(*pairs, strict=True)]
    print(
        f"\n{ours['parameters'] / 1e6:.1f} M parameters, rows of {row} x {args.batch_size}, {'bfloat16' if gpu else 'float32'}, peak {peak / 1e12:.3g} TFLOP/s ({source})"
    )
    print(
        f"stage {middle[0]:,.0f} tokens/s, loop {middle[1]:,.0f} tokens/s, ratio {statistics.median(a / b for a, b, _ in pairs):.3f}, "
        f"spread {min(a / b for a, b, _ in pairs):.3f}-{max(a / b for a, b, _ in pairs):.3f}, mfu {middle[2]:.1%}\n"
    )


def made(folder: Path, vocab_size: int) -> dict[str, Any]:
    """A corpus and a tokenizer, as the steps before would leave them."""
    from texts import texts

    from llmstages.core.stage import Artifact
    from llmstages.data import tables
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    documents = texts(8_000_000 if vocab_size > 10_000 else 2_000_000)
    tables.save(
        [{"id": str(i), "url": "", "text": text} for i, text in enumerate(documents)],
        folder / "corpus" / "data",
    )
    build(
        (" " + text for text in documents[::4]), BPEConfig(vocab_size=vocab_size)
    ).save_pretrained(folder / "tokenizer")
    return {
        "corpus": (Artifact("corpus", "corpus", folder / "corpus", "c"),),
        "tokenizer": Artifact("tokenizer", "tokenizer", folder / "tokenizer", "t"),
        "dialogues": (),
        "model": None,
    }


def stage(config: Any, inputs: dict[str, Any], folder: Path) -> dict[str, float]:
    """Metrics of the stage."""
    from llmstages.plugins.pretrain.causal_lm import CausalLM

    return dict(CausalLM().run(config, context(folder, inputs)))


def context(folder: Path, inputs: dict[str, Any]) -> Any:
    """Where one run works."""
    from llmstages.core.stage import Context

    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    return Context(
        "pretrain", folder / "out", folder / "work", inputs, cache=folder.parent / "cache"
    )


def loop(config: Any, inputs: dict[str, Any], folder: Path) -> tuple[float, float]:
    """(tokens a second, last loss) of the same updates without a framework."""
    import torch
    from transformers import set_seed

    from llmstages.data import packing
    from llmstages.plugins.pretrain import throughput
    from llmstages.plugins.pretrain.causal_lm import CausalLM
    from llmstages.train.trainer import collate, compute_device, load_tokenizer

    set_seed(config.seed)
    tokenizer, device = load_tokenizer(inputs["tokenizer"].path), compute_device()
    pieces, _ = CausalLM().documents(config, context(folder, inputs), tokenizer)
    rows = packing.Packed(pieces, config.row, tokenizer.pad_token_id, config.seed)
    updates = config.max_tokens // (config.batch_size * config.row)
    batches = [
        {
            key: value.to(device) if hasattr(value, "to") else value
            for key, value in collate(
                [rows[(i * config.batch_size + j) % len(rows)] for j in range(config.batch_size)]
            ).items()
        }
        for i in range(updates)
    ]
    model = CausalLM().fresh(config, tokenizer).to(device).train()
    run = torch.compile(model) if config.compile else model
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    for index, batch in enumerate(batches):
        if index == 1:
            finished()
            start = throughput.clock()
        with torch.autocast(
            "cuda" if torch.cuda.is_available() else "cpu",
            dtype=torch.bfloat16,
            enabled=config.bf16,
        ):
            loss = run(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    finished()
    return (updates - 1) * config.batch_size * config.row / (
        throughput.clock() - start
    ), loss.item()


def finished() -> None:
    """Wait for the GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
