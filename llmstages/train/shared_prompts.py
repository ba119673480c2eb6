"""Log probabilities of answers, with each prompt of a batch computed once for all its answers.

In RL a group of answers shares its prompt, which is often longer than they are. The layers read the
distinct prompts first and keep their keys and values; the answers then read on from these. Weights
get the same gradients, up to rounding, since each path from an answer into its prompt is there.
What follows the layers (the head, and with it the vocabulary) sees the answers alone.
"""

from __future__ import annotations

import types
from typing import Any

from llmstages.text.decoding import cache_argument, can_decode, inner_model, positions_of


def share_prompts(model: Any) -> bool:
    """Let the layers of a causal model take ``answer_tokens``; False where they cannot.

    Called with it, and with ``input_ids`` and ``attention_mask`` [rows, tokens] of which the last
    ``answer_tokens`` columns are answers, the layers give as ``last_hidden_state`` [rows,
    answer_tokens, width] the states from which the tokens of the answers are predicted. Prompts are
    padded on the left, answers on the right.
    """
    owner = inner_model(model)
    if not can_decode(owner) or "forward" in vars(owner.base_model):
        return False
    share_in_layers(owner.base_model, cache_argument(type(owner)))
    return True


def share_in_layers(layers: Any, cache_name: str) -> None:
    """The same for the layers alone. cache_name: what they call their cache."""
    keeps_all = _keeps_all(layers)

    def forward(self: Any, *args: Any, answer_tokens: int | None = None, **kwargs: Any) -> Any:
        # Of its class, so that a copy of the layers computes with its own weights.
        inner = types.MethodType(type(self).forward, self)
        if answer_tokens is None:
            return inner(*args, **kwargs)
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        # Gradient checkpointing computes layers again and would fill the cache twice.
        checkpointing = self.training and getattr(self, "gradient_checkpointing", False)
        cache = None if checkpointing or not keeps_all else cache_name
        states = _states_before_answers(self, inner, cache, ids, mask, answer_tokens)
        return types.SimpleNamespace(last_hidden_state=states)

    layers.forward = types.MethodType(forward, layers)


def _states_before_answers(
    layers: Any, forward: Any, cache_name: str | None, ids: Any, mask: Any, kept: int
) -> Any:
    """States before each token of the answers; of whole rows where there is no ``cache_name``."""
    width = ids.shape[1] - kept
    prompts, rows = _distinct(ids[:, :width], mask[:, :width])
    if cache_name is None or len(prompts) == len(ids):
        whole = forward(
            input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=False
        )
        return whole.last_hidden_state[:, width - 1 : -1]
    return _read_on(layers, forward, cache_name, prompts, rows, ids[:, width:], mask[:, width:])


def _distinct(ids: Any, mask: Any) -> tuple[Any, Any]:
    """(distinct prompts with -1 for padding [prompts, tokens], which of them each row has)."""
    import torch

    padded = ids.masked_fill(mask == 0, -1)
    # No column of padding alone, which is there where other batches have longer prompts.
    first = int((padded >= 0).any(dim=0).int().argmax())
    return torch.unique(padded[:, first:], dim=0, return_inverse=True)


def _keeps_all(layers: Any) -> bool:
    """Whether each layer keeps the keys and values of all tokens, and not of a window alone."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=layers.config).layers)


def _read_on(
    layers: Any,
    forward: Any,
    cache_name: str,
    prompts: Any,
    rows: Any,
    answers: Any,
    answer_mask: Any,
) -> Any:
    """The states from which answers are predicted, after their distinct prompts."""
    import torch
    from transformers import DynamicCache

    cache: Any = DynamicCache(config=layers.config)
    arguments = {cache_name: cache, "use_cache": True}
    mask = (prompts >= 0).long()
    positions = positions_of(mask)
    read = forward(
        input_ids=prompts.clamp(min=0), attention_mask=mask, position_ids=positions, **arguments
    )
    first = read.last_hidden_state[:, -1:].index_select(0, rows)
    # The last token of an answer predicts nothing that is asked for.
    before_last = answers.shape[1] - 1
    if not before_last:
        return first
    for layer in cache.layers:
        layer.keys = layer.keys.index_select(0, rows)
        layer.values = layer.values.index_select(0, rows)
    steps = torch.arange(1, before_last + 1, device=answers.device)
    read = forward(
        input_ids=answers[:, :before_last],
        attention_mask=torch.cat([mask[rows], answer_mask[:, :before_last].long()], dim=1),
        position_ids=positions[rows, -1:] + steps,
        **arguments,
    )
    return torch.cat([first, read.last_hidden_state], dim=1)
