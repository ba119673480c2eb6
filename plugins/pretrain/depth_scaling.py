"""One dial for a compute-optimal run: from ``depth`` follow shape, batch, learning rate and training tokens. No torch here.

The rules are nanochat's (Karpathy, scripts/base_train.py), with one learning rate for AdamW instead of its four:
width = 64 a layer, in heads of 128 (of 64 below a width of 512); tokens = ``ratio`` for each weight of layers and head;
batch = 2**19 tokens at depth 12, growing with tokens ** 0.383 (Bergsma et al. 2025, "Power Lines"), a power of two;
rate = 6e-4 at width 768 and 2**19 tokens (Brown et al. 2020), falling with the width (Yang et al. 2022) and rising with
the root of the batch. A corpus is read at most four times (Muennighoff et al. 2023). Whatever is set explicitly is kept,
and the rest is derived from it. Not derived: row, context, warm-up, weight decay, vocabulary. Below depth 4 the batch is
extrapolated far from where it was measured; there a smaller one, set explicitly, gives a small model more updates.
"""

from __future__ import annotations

import dataclasses as dc
import math
from typing import Any

from llmstages.core.stage import Context

SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "learning_rate": 3e-3,
    "batch_size": 4,
    "epochs": 1.0,
}  # without a depth
UNGATED = (
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "opt",
    "phi",
)  # two matrices in the feed-forward layer instead of three
WIDTH, BATCH, RATE = 768, 1 << 19, 6e-4  # depth 12
PASSES = 4.0
MICRO = 1 << 14  # tokens a process computes at once, unless micro_batch_size is set


def settle(config: Any, vocabulary: int, processes: int = 1) -> tuple[Any, dict[str, Any]]:
    """(config without zeros, what was derived: {} without a depth). A settled config is left as it is.

    config: CausalLMConfig, or anything with its fields; vocabulary: entries of the tokenizer.
    """
    if not config.depth:
        return dc.replace(
            config, **{name: value for name, value in SMALL.items() if not getattr(config, name)}
        ), {}
    found = {name: getattr(config, name) for name in (*SMALL, "micro_batch_size", "max_tokens")}
    own = {name for name, value in found.items() if value}
    found |= shape(config, found)
    weights = scaling_weights(config.architecture, found, config.num_key_value_heads, vocabulary)
    tokens = round(config.ratio * weights)
    if not found["epochs"]:
        found |= {"epochs": PASSES, "max_tokens": found["max_tokens"] or tokens}
    first = scaling_weights(config.architecture, shape(dc.replace(config, depth=12)), 0, vocabulary)
    grown = BATCH * (weights / first) ** 0.383
    found["batch_size"] = found["batch_size"] or 1 << max(
        0, round(math.log2(grown / config.max_length))
    )
    batch = found["batch_size"] * config.max_length
    found["learning_rate"] = found["learning_rate"] or float(
        f"{RATE * WIDTH / found['hidden_size'] * math.sqrt(batch / BATCH):.3g}"
    )
    found["micro_batch_size"] = found["micro_batch_size"] or micro(
        found["batch_size"], config.max_length, processes
    )
    told = {
        "depth": config.depth,
        "batch_tokens": batch,
        "scaling_weights": weights,
        "compute_optimal_tokens": tokens,
    }
    return dc.replace(config, **found), {**found, **told, "set_explicitly": sorted(own)}


def shape(config: Any, own: dict[str, Any] | None = None) -> dict[str, int]:
    """Layers, width, heads and feed-forward width of a depth; values in ``own`` that are not 0 are kept."""
    own = own or {}
    wanted = 64 * config.depth
    size = 64 if wanted < 512 else 128
    hidden = own.get("hidden") or -(-wanted // size) * size
    heads = own.get("heads") or max(1, hidden // size)
    wide = 4 * hidden if config.architecture in UNGATED else -(-8 * hidden // 3 // 64) * 64
    return {
        "num_hidden_layers": own.get("layers") or config.depth,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": own.get("intermediate") or wide,
    }


def scaling_weights(
    architecture: str, found: dict[str, Any], num_key_value_heads: int, vocabulary: int
) -> int:
    """Weights of the layers' matrices and the output head: the count that scaling laws go by (embeddings only look up)."""
    hidden, heads = found["hidden_size"], found["num_attention_heads"]
    attention = 2 * hidden * hidden + 2 * hidden * hidden * (num_key_value_heads or heads) // heads
    forward = (2 if architecture in UNGATED else 3) * hidden * found["intermediate_size"]
    return found["num_hidden_layers"] * (attention + forward) + vocabulary * hidden


def micro(batch_size: int, row: int, processes: int) -> int:
    """Rows each process computes at once: at most MICRO tokens, a part that divides the batch; 0 where none does."""
    rows = 1 << int(math.log2(max(1, MICRO // row)))
    while rows > 1 and batch_size % (rows * processes):
        rows //= 2
    return 0 if batch_size % (rows * processes) else rows


def sentence(derived: dict[str, Any]) -> str:
    """What the dial set, in one line."""

    def shown(name: str) -> str:
        value = derived[name]
        return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:g}"

    own = derived["set_explicitly"]
    names = [
        name
        for name in (*SMALL, "micro_batch_size", "max_tokens")
        if name not in own and derived[name]
    ]
    kept = f"; set explicitly: {', '.join(map(shown, own))}" if own else ""
    return (
        f"depth {derived['depth']} gives {', '.join(map(shown, names))} ({derived['batch_tokens']:,} tokens a batch, "
        f"{derived['scaling_weights'] / 1e6:.1f} M weights in layers and head){kept}"
    )


def write(derived: dict[str, Any], updates: int, config: Any, ctx: Context) -> None:
    """derived.json, all that the dial decided; says so where the corpus is too small for it. config: the settled one."""
    from llmstages.data import tables
    from llmstages.train import distributed

    if not derived:
        return
    tokens, wanted = updates * derived["batch_tokens"], derived["compute_optimal_tokens"]
    if tokens < 0.95 * wanted and not {"epochs", "max_tokens"} & {*derived["set_explicitly"]}:
        ctx.say(
            f"{ctx.step}: {PASSES:g} passes over the corpus are {tokens / 1e6:.1f} M tokens, fewer than the {wanted / 1e6:.1f} M that depth "
            f"{config.depth} asks for; a smaller depth would use this corpus better"
        )
    if distributed.first_process():
        told = {
            name: value for name, value in derived.items() if name != "micro_batch_size"
        }  # that is how, and follows from the launcher
        tables.write_json(
            ctx.out / "derived.json",
            {**told, "updates": updates, "tokens": tokens, "max_length": config.max_length},
        )
