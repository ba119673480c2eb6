"""How many sequences fit into memory at once when a model generates or is read.

What grows with the batch is the cache of keys and values, the activations of one layer while the
prompt is read, and the scores over the vocabulary. With 49,152 to 262,144 tokens the scores of one
position already take 0.2 to 1 MB a sequence, so no array of batch x tokens x vocabulary is made
anywhere: the functions here count how much of it may live at a time.

The number is a power of two, so that small changes of free memory change nothing. Greedy results
do not depend on it, up to the rounding of sums in another order; sampled ones do, since all
sequences of a batch draw from one stream of random numbers. So a batch is only made smaller than
asked for where it would not fit.
"""

from __future__ import annotations

from typing import Any

from llmstages.core import memory

SHARE_OF_FREE = 0.5  # of the free memory, since allocators need room between their blocks
FLOAT = 4  # bytes of a score: transformers decides on a token in float32
# Arrays (batch, vocabulary) that live while a token is chosen: the scores, their float32 copy,
# probabilities, and the exponential draws and their quotient when sampling.
SCORE_ARRAYS = 5
LAYER_ARRAYS = 8  # arrays (batch, tokens, width) that live within a layer without gradients


def available_memory(device: Any) -> float:
    """Bytes on a torch device that batches may take together.

    It is asked once for all batches: later, freed blocks that the allocator keeps would seem taken.
    """
    return SHARE_OF_FREE * free_memory(device)


def batch_for(model: Any, length: int, new_tokens: int, most: int, available: float) -> int:
    """Sequences of ``length`` tokens that can be generated at once, from 1 to ``most``.

    Args:
        model: of transformers.
        length: longest prompt in tokens.
        new_tokens: longest reply in tokens.
        most: the number if memory is no limit.
        available: bytes, see ``available_memory``.
    """
    return fitting(bytes_per_sequence(model, length, new_tokens), available, most)


def fitting(size: float, available: float, most: int) -> int:
    """``most``, or the largest power of two whose items of ``size`` bytes are available."""
    number = int(available // size) if size else most
    if number >= most:
        return most
    return 1 << max(0, number.bit_length() - 1)


def bytes_per_sequence(model: Any, length: int, new_tokens: int) -> int:
    """Bytes that one sequence takes while a model generates, beside the weights."""
    config = model.config.get_text_config()
    hidden = config.hidden_size
    layers = config.num_hidden_layers
    heads = getattr(config, "num_attention_heads", None) or 1
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or hidden // heads
    widest = max(getattr(config, "intermediate_size", None) or 4 * hidden, hidden)
    element = model.dtype.itemsize
    cache = 2 * layers * key_value_heads * head_size * (length + new_tokens) * element
    activations = LAYER_ARRAYS * length * widest * element
    return cache + activations + SCORE_ARRAYS * FLOAT * config.vocab_size


def free_memory(device: Any) -> int:
    """Bytes that are free on a torch device; a very large number where the system does not say."""
    if getattr(device, "type", str(device)) == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # What torch has reserved but does not use is free for it as well.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + idle
    return memory.free()
