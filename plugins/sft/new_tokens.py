"""Control tokens that a model did not know when it was pretrained: rows of its embeddings for them, begun sensibly.

A row drawn at random is longer or shorter than all that the model has seen, and its logit is wrong from the start (Hewitt 2021).
mean: the average of all rows. semantic: the average of the tokens that spell what the mark says, so that ``<SEARCH_START>`` begins
as "search start" does. Either way the weights before are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

STARTS = ("semantic", "mean")
SAYS = {
    "im": "message",
    "eot": "end of turn",
    "sep": "separator",
    "calc": "calculator",
    "bos": "begin",
    "eos": "end",
    "id": "",
    "s": "",
}  # what short names stand for


def init_new_embeddings(model: Any, tokenizer: Any, new: Sequence[str], start: str) -> list[int]:
    """Make room for ``new`` tokens in the embeddings, input and output; returns their ids."""
    import torch

    ids = tokenizer.convert_tokens_to_ids(list(new))
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    layers = [
        layer
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer is not None
    ]
    old = min(ids, default=0)
    with torch.no_grad():
        for weights in {
            id(layer.weight): layer.weight for layer in layers
        }.values():  # tied ones are one
            for token, row in zip(new, ids, strict=True):
                spelt = (
                    [i for i in spelling(tokenizer, token) if i < old]
                    if start == "semantic"
                    else []
                )
                weights[row] = weights[spelt].mean(0) if spelt else weights[:old].mean(0)
        bias = getattr(model.get_output_embeddings(), "bias", None)
        if bias is not None and ids:
            bias[ids] = bias[:old].mean()
    return ids


def spelling(tokenizer: Any, token: str) -> list[int]:
    """Ids of the words that a mark is made of."""
    from llmstages.text import chat_format

    words = " ".join(SAYS.get(word, word) for word in re.findall(r"[a-z0-9]+", token.lower()))
    return chat_format.encode_texts(tokenizer, [words])[0] if words.strip() else []
