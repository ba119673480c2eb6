"""What packing gives: dialogues packed whole into rows, against dialogues padded to their batch.

    python benchmarks/packing.py --dialogues alpaca.json     # any file that dialogues=files reads
    python benchmarks/packing.py --dialogues alpaca.json --max-length 512 --rounds 5

Both sides are bare loops over the same dialogues, model and optimizer, in one process, in turns. A
batch of either side holds batch-size rows. Tokens are those of dialogues alone, never padding, so
the ratio is how much sooner the same pass over the data is finished.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure and print."""
    args = parse_arguments()
    rows, tokenizer = render_dialogues(args)
    tokens = sum(len(row.ids) for row in rows)
    batches = {
        "packed": packed_batches(rows, args, tokenizer.pad_token_id),
        "padded": padded_batches(rows, args, tokenizer.pad_token_id),
    }
    ratios = []
    for number in range(args.rounds):
        speeds = {}
        # Who goes first changes, so that neither side always finds warm caches.
        for side in sorted(batches, reverse=number % 2 == 0):
            seconds = train_seconds(batches[side], len(tokenizer), args.max_length)
            speeds[side] = tokens / seconds
        ratios.append(speeds["packed"] / speeds["padded"])
        print(
            f"round {number + 1}: packed {speeds['packed']:,.0f} tokens/s, "
            f"padded {speeds['padded']:,.0f}, ratio {ratios[-1]:.2f}",
            flush=True,
        )
    filled = {}
    for side in batches:
        filled[side] = tokens / sum(batch["input_ids"].numel() for batch in batches[side])
    print(
        f"\n{len(rows)} dialogues, {tokens:,} tokens; rows of {args.max_length} x "
        f"{args.batch_size}; full of tokens: packed {filled['packed']:.0%}, "
        f"padded {filled['padded']:.0%}"
    )
    median = statistics.median(ratios)
    print(f"ratio {median:.2f}, spread {min(ratios):.2f}-{max(ratios):.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialogues", type=Path, required=True, help="a file of dialogues")
    parser.add_argument(
        "--max-length",
        type=int,
        default=512,
        help="tokens in a row; longer dialogues are left out (default 512)",
    )
    parser.add_argument("--batch-size", type=int, default=4, help="rows in a batch (default 4)")
    parser.add_argument("--count", type=int, default=300, help="dialogues (default 300)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="pairs, the median counts (default 5)"
    )
    return parser.parse_args()


def render_dialogues(args: argparse.Namespace) -> tuple[list[Any], Any]:
    """(dialogues as tokens, tokenizer), by the product's own stages."""
    from llmstages.core.stage import Context
    from llmstages.data import tables
    from llmstages.plugins.dialogues.files import Files
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build
    from llmstages.text.render import render

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = Files.Config(path=str(args.dialogues), limit=args.count)
        Files().run(config, Context("dialogues", folder, folder, {}))
        dialogues = list(tables.load(folder / "data")["messages"])
    texts = [message["content"] for messages in dialogues for message in messages]
    tokenizer = build(texts, BPEConfig(vocab_size=4096))
    rows = [row for row in render(tokenizer, dialogues) if len(row.ids) <= args.max_length]
    return rows, tokenizer


def packed_batches(rows: list[Any], args: argparse.Namespace, pad: int) -> list[dict[str, Any]]:
    """Batches as sft=chat makes them."""
    from llmstages.data.packing import Packed
    from llmstages.data.segments import Segments
    from llmstages.train.batches import collate

    packed = Packed(Segments.of(rows), args.max_length, pad, 0)
    batches = []
    for start in range(0, len(packed), args.batch_size):
        end = min(start + args.batch_size, len(packed))
        batches.append(collate([packed[index] for index in range(start, end)]))
    return batches


def padded_batches(rows: list[Any], args: argparse.Namespace, pad: int) -> list[dict[str, Any]]:
    """Random batches padded to their longest dialogue, as a plain collator makes them."""
    import torch

    shuffled = random.Random(0).sample(rows, len(rows))
    batches = []
    for start in range(0, len(shuffled), args.batch_size):
        batch = shuffled[start : start + args.batch_size]
        width = max(len(row.ids) for row in batch)
        ids, labels, masks = [], [], []
        for row in batch:
            padding = width - len(row.ids)
            supervised = zip(row.ids, row.supervised, strict=True)
            ids.append(row.ids + [pad] * padding)
            labels.append([token if on else -100 for token, on in supervised] + [-100] * padding)
            masks.append([1] * len(row.ids) + [0] * padding)
        batches.append(
            {
                "input_ids": torch.tensor(ids),
                "labels": torch.tensor(labels),
                "attention_mask": torch.tensor(masks),
                "use_cache": False,
            }
        )
    return batches


def train_seconds(batches: list[dict[str, Any]], vocab_size: int, max_length: int) -> float:
    """Seconds of one pass with updates; the first batch runs once before the clock starts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=max_length,
    )
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model(**batches[0]).loss.backward()
    optimizer.zero_grad()
    start = time.perf_counter()
    for batch in batches:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
