"""What packing gives: dialogues packed whole into rows against dialogues padded to the longest of their batch, in one process, in turns.

    python benchmarks/packing.py --dialogues alpaca.json                   # any file that dialogues=files reads
    python benchmarks/packing.py --dialogues alpaca.json --row 512 --rounds 5

Both sides are bare loops over the same dialogues, model and optimizer. A batch of either side holds batch_size rows. Tokens are
those of dialogues alone, never padding, so the ratio is what a user waits less for the same pass over the data.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialogues", type=Path, required=True, help="a file of dialogues")
    parser.add_argument(
        "--row",
        type=int,
        default=512,
        help="tokens in a row; longer dialogues are left out (default 512)",
    )
    parser.add_argument("--batch-rows", type=int, default=4, help="rows in a batch (default 4)")
    parser.add_argument("--count", type=int, default=300, help="dialogues (default 300)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="pairs, the median counts (default 5)"
    )
    args = parser.parse_args()
    sides = {"packed": packed, "padded": padded}
    rows, tokenizer = rendered(args)
    tokens = sum(len(row.ids) for row in rows)
    batches = {name: made(rows, args, tokenizer.pad_token_id) for name, made in sides.items()}
    pairs = []
    for turn in range(args.rounds):
        found = {
            name: tokens / seconds(batches[name], len(tokenizer), args.row)
            for name in sorted(sides, reverse=turn % 2 == 0)
        }
        pairs.append(found["packed"] / found["padded"])
        print(
            f"round {turn + 1}: packed {found['packed']:,.0f} tokens/s, padded {found['padded']:,.0f}, ratio {pairs[-1]:.2f}",
            flush=True,
        )
    filled = {
        name: tokens / sum(batch["input_ids"].numel() for batch in some)
        for name, some in batches.items()
    }
    print(
        f"\n{len(rows)} dialogues, {tokens:,} tokens; rows of {args.row} x {args.batch_size}; full of tokens: packed {filled['packed']:.0%}, padded {filled['padded']:.0%}"
    )
    print(f"ratio {statistics.median(pairs):.2f}, spread {min(pairs):.2f}-{max(pairs):.2f}")


def rendered(args: argparse.Namespace) -> tuple[list[Any], Any]:
    """(dialogues as tokens, tokenizer), by the product's own stages."""
    from llmstages.core.stage import Context
    from llmstages.data import tables
    from llmstages.plugins.dialogues.files import Files
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build
    from llmstages.text.render import render

    with tempfile.TemporaryDirectory() as folder:
        Files().run(
            Files.Config(path=str(args.dialogues), limit=args.count),
            Context("dialogues", Path(folder), Path(folder), {}),
        )
        dialogues = list(tables.load(Path(folder) / "data")["messages"])
    tokenizer = build((m["content"] for d in dialogues for m in d), BPEConfig(vocab_size=4096))
    return [row for row in render(tokenizer, dialogues) if len(row.ids) <= args.row], tokenizer


def packed(rows: list[Any], args: argparse.Namespace, pad: int) -> list[dict[str, Any]]:
    """Batches as sft=chat makes them."""
    from llmstages.data import packing
    from llmstages.train.trainer import collate

    made = packing.Packed(packing.Segments.of(rows), args.row, pad, 0)
    return [
        collate([made[i] for i in range(at, min(at + args.batch_size, len(made)))])
        for at in range(0, len(made), args.batch_size)
    ]


def padded(rows: list[Any], args: argparse.Namespace, pad: int) -> list[dict[str, Any]]:
    """Batches padded to their longest dialogue, drawn at random, as a plain collator makes them."""
    import torch

    rows, out = random.Random(0).sample(rows, len(rows)), []
    for at in range(0, len(rows), args.batch_size):
        some = rows[at : at + args.batch_size]
        width = max(len(row.ids) for row in some)
        fill = [width - len(row.ids) for row in some]
        out.append(
            {
                "input_ids": torch.tensor(
                    [row.ids + [pad] * more for row, more in zip(some, fill, strict=True)]
                ),
                "labels": torch.tensor(
                    [
                        [i if on else -100 for i, on in zip(row.ids, row.supervised, strict=True)]
                        + [-100] * more
                        for row, more in zip(some, fill, strict=True)
                    ]
                ),
                "attention_mask": torch.tensor(
                    [[1] * len(row.ids) + [0] * more for row, more in zip(some, fill, strict=True)]
                ),
                "use_cache": False,
            }
        )
    return out


def seconds(batches: list[dict[str, Any]], vocabulary: int, row: int) -> float:
    """Of one pass with updates; the first batch is gone through once before the clock starts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=384,
            max_position_embeddings=row,
        )
    ).train()
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
