"""Sizes of a compute-optimal run from one number, its ``depth``. Nothing here needs torch.

From the number of layers follow shape, batch, learning rate and training tokens. The rules are
nanochat's (Karpathy, scripts/base_train.py), with one learning rate for AdamW instead of its four:

- width = 64 per layer, in heads of 128 (of 64 below a width of 512);
- tokens = ``ratio`` for each weight of layers and head;
- batch = 2**19 tokens at depth 12, growing with tokens ** 0.383 (Bergsma et al. 2025, "Power
  Lines"), as a power of two;
- rate = 6e-4 at width 768 and 2**19 tokens (Brown et al. 2020), falling with the width (Yang et
  al. 2022) and rising with the root of the batch;
- a corpus is read at most four times (Muennighoff et al. 2023).

Whatever is set explicitly is kept, and the rest is derived from it. Not derived: the length of rows
and of the context, warm-up, weight decay, vocabulary. Below depth 4 the batch is extrapolated far
from where it was measured; there a smaller one, set explicitly, gives a small model more updates.
"""

from __future__ import annotations

import dataclasses as dc
import math
from collections.abc import Mapping
from typing import Any

from llmstages.core.stage import Context

# What a config without a depth has instead of its zeros.
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "learning_rate": 3e-3,
    "batch_size": 4,
    "epochs": 1.0,
}
DERIVED = (*SMALL, "micro_batch_size", "max_tokens")
# Architectures with two matrices in the feed-forward layer instead of three.
UNGATED = ("gpt2", "gpt_neo", "gpt_neox", "opt", "phi")
# The run that batch and rate are scaled from.
REFERENCE_DEPTH = 12
REFERENCE_WIDTH = 768
REFERENCE_BATCH_TOKENS = 1 << 19
REFERENCE_RATE = 6e-4
MAX_EPOCHS = 4.0
MICRO_BATCH_TOKENS = 1 << 14  # computed by a process at once, unless micro_batch_size is set


def resolve(config: Any, vocab_size: int, processes: int = 1) -> tuple[Any, dict[str, Any]]:
    """Replace the zeros of a config. A config that is resolved already stays as it is.

    Args:
        config: a CausalLMConfig, or a dataclass with its fields.
        vocab_size: entries of the tokenizer.

    Returns:
        (the config without zeros, what was derived: {} without a depth).
    """
    if not config.depth:
        unset = {name: value for name, value in SMALL.items() if not getattr(config, name)}
        return dc.replace(config, **unset), {}
    values = {name: getattr(config, name) for name in DERIVED}
    set_explicitly = sorted(name for name, value in values.items() if value)
    values |= model_shape(config.depth, config.architecture, values)
    weights = scaling_weights(config.architecture, values, config.num_key_value_heads, vocab_size)
    optimal_tokens = round(config.ratio * weights)
    if not values["epochs"]:
        values["epochs"] = MAX_EPOCHS
        values["max_tokens"] = values["max_tokens"] or optimal_tokens
    if not values["batch_size"]:
        values["batch_size"] = _batch_size(config, weights, vocab_size)
    batch_tokens = values["batch_size"] * config.max_length
    if not values["learning_rate"]:
        width_factor = REFERENCE_RATE * REFERENCE_WIDTH / values["hidden_size"]
        rate = width_factor * math.sqrt(batch_tokens / REFERENCE_BATCH_TOKENS)
        values["learning_rate"] = float(f"{rate:.3g}")
    if not values["micro_batch_size"]:
        values["micro_batch_size"] = micro_batch_size(
            values["batch_size"], config.max_length, processes
        )
    derived = {
        **values,
        "depth": config.depth,
        "batch_tokens": batch_tokens,
        "scaling_weights": weights,
        "compute_optimal_tokens": optimal_tokens,
        "set_explicitly": set_explicitly,
    }
    return dc.replace(config, **values), derived


def _batch_size(config: Any, weights: int, vocab_size: int) -> int:
    """Rows in one update: a power of two that grows with the training tokens.

    Tokens are proportional to the weights, so the ratio of weights stands for that of tokens.
    """
    reference = model_shape(REFERENCE_DEPTH, config.architecture)
    reference_weights = scaling_weights(config.architecture, reference, 0, vocab_size)
    tokens = REFERENCE_BATCH_TOKENS * (weights / reference_weights) ** 0.383
    return 1 << max(0, round(math.log2(tokens / config.max_length)))


def model_shape(
    depth: int, architecture: str, explicit: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Layers, width, heads and feed-forward width of a depth.

    Args:
        explicit: values that are kept where they are not 0.
    """
    explicit = explicit or {}
    width = 64 * depth
    head_size = 64 if width < 512 else 128
    hidden_size = explicit.get("hidden_size") or _round_up(width, head_size)
    heads = explicit.get("num_attention_heads") or max(1, hidden_size // head_size)
    if architecture in UNGATED:
        intermediate_size = 4 * hidden_size
    else:
        # A third matrix gates the layer: 8/3 of the width gives as many weights as two of 4.
        intermediate_size = _round_up(8 * hidden_size // 3, 64)
    return {
        "num_hidden_layers": explicit.get("num_hidden_layers") or depth,
        "hidden_size": hidden_size,
        "num_attention_heads": heads,
        "intermediate_size": explicit.get("intermediate_size") or intermediate_size,
    }


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def scaling_weights(
    architecture: str, shape: Mapping[str, Any], num_key_value_heads: int | None, vocab_size: int
) -> int:
    """Weights of the layers' matrices and the output head.

    Scaling laws go by this count. Embeddings are not in it, because they only look up.
    """
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    key_value_heads = num_key_value_heads or heads
    attention = 2 * hidden * hidden + 2 * hidden * hidden * key_value_heads // heads
    matrices = 2 if architecture in UNGATED else 3
    feed_forward = matrices * hidden * shape["intermediate_size"]
    return shape["num_hidden_layers"] * (attention + feed_forward) + vocab_size * hidden


def micro_batch_size(batch_size: int, max_length: int, processes: int) -> int:
    """Rows each process computes at once.

    At most MICRO_BATCH_TOKENS tokens, in a number that divides the batch; 0 where none does.
    """
    rows = 1 << int(math.log2(max(1, MICRO_BATCH_TOKENS // max_length)))
    while rows > 1 and batch_size % (rows * processes):
        rows //= 2
    if batch_size % (rows * processes):
        return 0
    return rows


def describe(derived: Mapping[str, Any]) -> str:
    """What the depth decided, in one sentence."""
    explicit = derived["set_explicitly"]
    decided = [name for name in DERIVED if name not in explicit and derived[name]]
    sentence = (
        f"depth {derived['depth']} gives {_list_values(derived, decided)} "
        f"({derived['batch_tokens']:,} tokens per batch, "
        f"{derived['scaling_weights'] / 1e6:.1f} M weights in layers and head)"
    )
    if explicit:
        sentence += f"; set explicitly: {_list_values(derived, explicit)}"
    return sentence


def _list_values(derived: Mapping[str, Any], names: list[str]) -> str:
    """``hidden_size 128, epochs 4``."""
    parts = []
    for name in names:
        value = derived[name]
        text = f"{value:,}" if isinstance(value, int) else f"{value:g}"
        parts.append(f"{name} {text}")
    return ", ".join(parts)


def write_derived(
    derived: Mapping[str, Any], updates: int, tokens: int, config: Any, ctx: Context
) -> None:
    """Write derived.json, all that the depth decided; say where the corpus is too small for it.

    Args:
        derived: what the depth gave.
        updates, tokens: of the training.
        config: the resolved config.
        ctx: where to write.
    """
    from llmstages.data import tables
    from llmstages.train import distributed

    if not derived:
        return
    wanted = derived["compute_optimal_tokens"]
    length_is_explicit = {"epochs", "max_tokens"} & {*derived["set_explicitly"]}
    if tokens < 0.95 * wanted and not length_is_explicit:
        ctx.say(
            f"{ctx.step}: {MAX_EPOCHS:g} passes over the corpus are {tokens / 1e6:.1f} M tokens, "
            f"fewer than the {wanted / 1e6:.1f} M that depth {config.depth} asks for; "
            "a smaller depth would use this corpus better"
        )
    if distributed.first_process():
        values = dict(derived)
        # It follows from the launcher and does not change the result.
        del values["micro_batch_size"]
        values |= {"updates": updates, "tokens": tokens, "max_length": config.max_length}
        tables.write_json(ctx.out / "derived.json", values)
