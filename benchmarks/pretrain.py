"""Speed of pretrain=causal_lm against a bare PyTorch loop, in one process, in turns.

    python benchmarks/pretrain.py    # the default model on a CPU; 124M in bfloat16 on a GPU
    python benchmarks/pretrain.py --max-length 1024 2048 --rounds 5    # one result per length
    python benchmarks/pretrain.py --hidden-size 64 --num-hidden-layers 2 --updates 50

Both sides have the same model, rows, optimizer and batch. The loop is the best case: its batches
are tensors before the clock starts, and it logs, checks and saves nothing. The first update of
either side does not count, nor do evaluation and saving of the stage. ratio is the median over
pairs of stage / loop; mfu is the share of the device's peak that the model's own FLOPs are
(plugins/pretrain/throughput.py).
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

CPU_DEFAULTS = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "max_length": [256],
    "batch_size": 4,
    "vocab_size": 1024,
}
GPU_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 2048,
    "max_length": [1024, 2048],
    "batch_size": 16,
    "vocab_size": 32768,
}


def main() -> None:
    """Measure and print."""
    import torch

    from llmstages.plugins.pretrain import throughput

    has_gpu = torch.cuda.is_available()
    args = parse_arguments(GPU_DEFAULTS if has_gpu else CPU_DEFAULTS)
    if args.cpu_time:
        throughput.clock = time.process_time
    with tempfile.TemporaryDirectory() as folder:
        for max_length in args.max_length:
            measure(args, max_length, Path(folder) / str(max_length), has_gpu)


def parse_arguments(defaults: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in defaults.items():
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
        help="updates of each side in each round; the stage stops ten times to evaluate, and each "
        "time finds its caches cold (default 200)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="pairs, the median counts (default 5)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU time of this process instead of wall time, on a machine that others share",
    )
    return parser.parse_args()


def measure(args: argparse.Namespace, max_length: int, folder: Path, has_gpu: bool) -> None:
    """Pairs of runs for one length of rows, and their result."""
    from llmstages.plugins.pretrain import throughput
    from llmstages.plugins.pretrain.causal_lm import CausalLMConfig

    config = CausalLMConfig(
        hidden_size=args.hidden_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
        intermediate_size=args.intermediate_size,
        max_length=max_length,
        max_position_embeddings=max(512, max_length),
        batch_size=args.batch_size,
        init="plain",
        bf16=has_gpu,
        compile=args.compile,
        sample_every=0.0,
        epochs=100.0,
        max_tokens=args.updates * args.batch_size * max_length,
        learning_rate=6e-4 if has_gpu else 3e-3,
    )
    inputs = make_inputs(folder, args.vocab_size)
    stage_speeds, loop_speeds, mfus, ratios = [], [], [], []
    metrics: dict[str, float] = {}
    for number in range(args.rounds):
        loop_speed = loss = 0.0
        # Who goes first changes, so that neither side always finds warm caches.
        for side in sorted(("loop", "stage"), reverse=number % 2 == 0):
            run_folder = folder / f"{number}-{side}"
            if side == "stage":
                metrics = run_stage(config, inputs, run_folder)
            else:
                loop_speed, loss = run_loop(config, inputs, run_folder)
        stage_speeds.append(metrics["tokens_per_second"])
        loop_speeds.append(loop_speed)
        mfus.append(metrics["mfu"])
        ratios.append(stage_speeds[-1] / loop_speed)
        print(
            f"round {number + 1}: stage {stage_speeds[-1]:,.0f} tokens/s, loop {loop_speed:,.0f}, "
            f"ratio {ratios[-1]:.3f} (loss of the loop {loss:.2f})",
            flush=True,
        )
    peak, source = throughput.peak(has_gpu)
    print(
        f"\n{metrics['parameters'] / 1e6:.1f} M parameters, rows of {max_length} x "
        f"{args.batch_size}, {'bfloat16' if has_gpu else 'float32'}, "
        f"peak {peak / 1e12:.3g} TFLOP/s ({source})"
    )
    print(
        f"stage {statistics.median(stage_speeds):,.0f} tokens/s, "
        f"loop {statistics.median(loop_speeds):,.0f} tokens/s, "
        f"ratio {statistics.median(ratios):.3f}, "
        f"spread {min(ratios):.3f}-{max(ratios):.3f}, mfu {statistics.median(mfus):.1%}\n"
    )


def make_inputs(folder: Path, vocab_size: int) -> dict[str, Any]:
    """A corpus and a tokenizer, as the steps before would leave them."""
    from texts import texts

    from llmstages.core.stage import Artifact
    from llmstages.data import tables
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    documents = texts(8_000_000 if vocab_size > 10_000 else 2_000_000)
    rows = [{"id": str(i), "url": "", "text": text} for i, text in enumerate(documents)]
    tables.save(rows, folder / "corpus" / "data")
    # A quarter of the text gives nearly the same vocabulary sooner.
    tokenizer = build((" " + text for text in documents[::4]), BPEConfig(vocab_size=vocab_size))
    tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "corpus": (Artifact("corpus", "corpus", folder / "corpus", "c"),),
        "tokenizer": Artifact("tokenizer", "tokenizer", folder / "tokenizer", "t"),
        "dialogues": (),
        "model": None,
    }


def run_stage(config: Any, inputs: dict[str, Any], folder: Path) -> dict[str, float]:
    """Metrics of the stage."""
    from llmstages.plugins.pretrain.causal_lm import CausalLM

    return dict(CausalLM().run(config, make_context(folder, inputs)))


def make_context(folder: Path, inputs: dict[str, Any]) -> Any:
    """Where one run works. All runs share the encoded corpus."""
    from llmstages.core.stage import Context

    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    return Context(
        "pretrain", folder / "out", folder / "work", inputs, cache=folder.parent / "cache"
    )


def run_loop(config: Any, inputs: dict[str, Any], folder: Path) -> tuple[float, float]:
    """(tokens per second, last loss) of the same updates without a framework."""
    import torch
    from transformers import set_seed

    from llmstages.plugins.pretrain import throughput
    from llmstages.plugins.pretrain.causal_lm import CausalLM
    from llmstages.train.distributed import compute_device
    from llmstages.train.trainer import load_tokenizer

    set_seed(config.seed)
    tokenizer = load_tokenizer(inputs["tokenizer"].path)
    batches = make_batches(config, make_context(folder, inputs), tokenizer)
    model = CausalLM().fresh(config, tokenizer).to(compute_device()).train()
    run = torch.compile(model) if config.compile else model
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    start, loss = 0.0, torch.tensor(0.0)
    for index, batch in enumerate(batches):
        # The first update allocates memory and compiles.
        if index == 1:
            wait_for_gpu()
            start = throughput.clock()
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=config.bf16):
            loss = run(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    wait_for_gpu()
    seconds = throughput.clock() - start
    tokens = (len(batches) - 1) * config.batch_size * config.max_length
    return tokens / seconds, loss.item()


def make_batches(config: Any, ctx: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """The batches of all updates, on the device."""
    from llmstages.data import packing
    from llmstages.plugins.pretrain.documents import load_documents
    from llmstages.train.batches import collate
    from llmstages.train.distributed import compute_device

    segments = load_documents(config, ctx, tokenizer).train
    rows = packing.Packed(segments, config.max_length, tokenizer.pad_token_id, config.seed)
    device = compute_device()
    batches = []
    for update in range(config.max_tokens // (config.batch_size * config.max_length)):
        first = update * config.batch_size
        numbers = range(first, first + config.batch_size)
        batch = collate([rows[number % len(rows)] for number in numbers])
        for key, value in batch.items():
            if hasattr(value, "to"):
                batch[key] = value.to(device)
        batches.append(batch)
    return batches


def wait_for_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
