"""Embeddings of control tokens that a model did not know when it was pretrained.

A row drawn at random is longer or shorter than every row that the model has seen, so its logit is
wrong from the start (Hewitt 2021). "mean" takes the average of all rows. "semantic" takes the
average of the tokens that spell the name of the control token, so that ``<SEARCH_START>`` begins as
"search start" does. Neither changes the weights of the tokens that were there before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

METHODS = ("semantic", "mean")
# What short names in control tokens stand for; "" has no meaning that could be spelled.
ABBREVIATIONS = {
    "im": "message",
    "eot": "end of turn",
    "sep": "separator",
    "calc": "calculator",
    "bos": "begin",
    "eos": "end",
    "id": "",
    "s": "",
}


def init_new_embeddings(
    model: Any, tokenizer: Any, new_tokens: Sequence[str], method: str
) -> list[int]:
    """Add rows for ``new_tokens`` to the input and output embeddings, and initialize them.

    Args:
        method: one of METHODS.

    Returns:
        The ids of the new tokens.
    """
    import torch

    ids = tokenizer.convert_tokens_to_ids(list(new_tokens))
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if not ids:
        return []
    first_new = min(ids)
    with torch.no_grad():
        for weight in _embedding_weights(model):
            for token, row in zip(new_tokens, ids, strict=True):
                spelling: list[int] = []
                if method == "semantic":
                    # Without new tokens, which are not initialized yet.
                    spelling = [i for i in spell_name(tokenizer, token) if i < first_new]
                source = weight[spelling] if spelling else weight[:first_new]
                weight[row] = source.mean(0)
        bias = getattr(model.get_output_embeddings(), "bias", None)
        if bias is not None:
            bias[ids] = bias[:first_new].mean()
    return ids


def _embedding_weights(model: Any) -> list[Any]:
    """The weights of the input and output embeddings; tied ones once."""
    weights = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not weights[0]:
        weights.append(head.weight)
    return weights


def spell_name(tokenizer: Any, token: str) -> list[int]:
    """Ids of the words in the name of a control token; empty where the name means nothing."""
    from llmstages.text import chat_format

    words: list[str] = re.findall(r"[a-z0-9]+", token.lower())
    text = " ".join([ABBREVIATIONS.get(word, word) for word in words])
    if not text.strip():
        return []
    return chat_format.encode_texts(tokenizer, [text])[0]
