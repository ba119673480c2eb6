"""What happens inside a model: attention of each head, the logit lens, norms of the residual.

The logit lens (nostalgebraist 2020) reads the residual stream after each layer as if it were the
last one: the model's own last norm and output layer are applied to it. All of it comes from one
pass of the real model, by the outputs that transformers offers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.serve import fields
from llmstages.serve.answers import answer_object
from llmstages.studio.next_token import ids_of
from llmstages.studio.tokenizers import shown_tokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

MOST_TOKENS = 96
MOST_NUMBERS = 4_000_000  # of all attention matrices
LENS_CANDIDATES = 3
DIGITS = 4  # of an attention weight in the answer
NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "embedding_norm")


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/inside: {model, text} -> attention, lens and norms."""
    from starlette.routing import Route

    async def inside(request: Request) -> Response:
        return await answer_object(request, lambda given: look_inside(studio, given))

    return [Route("/api/inside", inside, methods=["POST"])]


def look_inside(studio: Studio, given: dict[str, Any]) -> dict[str, Any]:
    """One pass over a text.

    Returns:
        ``tokens``; ``attention[layer][head][query][key]``; ``lens[layer][position]``: the likeliest
        next tokens with their probability, layer 0 being the embeddings; ``norms[layer][position]``
        of the residual stream. ``attention`` is empty where the model gives none.

    Raises:
        StageError: the model is too large for this view, or not of a form that it can read.
    """
    import torch

    from llmstages.serve.replies import TURNS

    loaded = studio.pool.get(fields.text(given, "model", 500))
    ids = ids_of(loaded, given, MOST_TOKENS)
    model, tokenizer = loaded.session.model, loaded.session.tokenizer
    config = model.config.get_text_config()
    numbers = config.num_hidden_layers * config.num_attention_heads * len(ids) ** 2
    if numbers > MOST_NUMBERS:
        raise StageError(
            f"the attention of this text would be {numbers:,} numbers, more than {MOST_NUMBERS:,}; "
            "take a shorter text"
        )
    with TURNS.one_reply(), loaded.lock, _eager(model), torch.no_grad():
        outputs = model(
            input_ids=torch.tensor([ids], device=model.device),
            output_attentions=True,
            output_hidden_states=True,
        )
        residuals = [state[0].float() for state in outputs.hidden_states]
        lens = _lens(model, outputs, tokenizer)
    weights = [layer for layer in outputs.attentions or () if layer is not None]
    return {
        "tokens": shown_tokens(tokenizer, ids),
        "attention": [_rounded(layer[0]) for layer in weights],
        "lens": lens,
        "norms": [_rounded(state.norm(dim=-1)) for state in residuals],
    }


def _rounded(values: Any) -> Any:
    """A tensor as nested lists of short numbers."""
    scale = 10**DIGITS
    return ((values.float() * scale).round() / scale).tolist()


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Attention that keeps its weights; the fast kinds never compute them as a whole."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def last_norm(model: Any) -> Any:
    """The norm between the last layer and the output layer.

    Raises:
        StageError: it is not found under the names that are known.
    """
    base = model.base_model
    for owner in (base, getattr(base, "decoder", None), getattr(base, "language_model", None)):
        for name in NORM_NAMES:
            norm = getattr(owner, name, None)
            if norm is not None:
                return norm
    raise StageError(f"{type(model).__name__} has its last norm under a name that is not known")


def _lens(model: Any, outputs: Any, tokenizer: Any) -> list[list[list[dict[str, Any]]]]:
    """What the residual after each layer would predict."""
    norm, output_layer = last_norm(model), model.get_output_embeddings()
    layers = []
    last = len(outputs.hidden_states) - 1
    for number, state in enumerate(outputs.hidden_states):
        # transformers gives the last state with the norm applied.
        logits = outputs.logits if number == last else output_layer(norm(state))
        best = logits[0].float().softmax(-1).topk(LENS_CANDIDATES, -1)
        positions = []
        for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            tokens = shown_tokens(tokenizer, indices)
            for token, value in zip(tokens, values, strict=True):
                token["probability"] = round(value, DIGITS)
            positions.append(tokens)
        layers.append(positions)
    return layers
