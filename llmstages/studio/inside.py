"""What happens inside a model: attention of each head, the logit lens, norms of the residual.

The logit lens (nostalgebraist 2020) reads the residual stream after each layer as if it were the
last one: the model's own last norm and output layer are applied to it. All of it comes from one
pass of the real model, by the outputs that transformers offers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
# Of config.layer_types in transformers; others are recurrences and convolutions.
WITH_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention", "attention")
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
        ``tokens``; ``attention[number][head][query][key]``, for the layers in
        ``attention_layers``: those that mix positions in another way (a recurrence, a convolution)
        have none; ``lens[layer][position]``: the likeliest next tokens with their probability,
        layer 0 being the embeddings; ``norms[layer][position]`` of the residual stream.

    Raises:
        StageError: the model is too large for this view, or not of a form that it can read.
    """
    import torch

    from llmstages.serve.replies import TURNS

    loaded = studio.pool.get(fields.text(given, "model", 500))
    ids = ids_of(loaded, given, MOST_TOKENS)
    model, tokenizer = loaded.session.model, loaded.session.tokenizer
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 0)  # Mamba has none
    numbers = config.num_hidden_layers * heads * len(ids) ** 2
    if numbers > MOST_NUMBERS:
        raise StageError(
            f"the attention of this text would be {numbers:,} numbers, more than {MOST_NUMBERS:,}; "
            "take a shorter text"
        )
    wanted: dict[str, bool] = {"output_hidden_states": True}
    if heads:
        wanted["output_attentions"] = True
    eager = _eager(model) if heads else nullcontext()
    with TURNS.one_reply(), eager, _last_residual(model) as last, torch.no_grad():
        outputs = model(input_ids=torch.tensor([ids], device=model.device), **wanted)
        lens = _lens(model, outputs, tokenizer)
    # transformers gives the last state with the norm applied, which hides its length.
    residuals = [*outputs.hidden_states[:-1], last[0]]
    weights = attention_by_layer(config, getattr(outputs, "attentions", None) or ())
    return {
        "tokens": shown_tokens(tokenizer, ids),
        "attention": [_rounded(layer[0]) for layer in weights.values()],
        "attention_layers": list(weights),
        "lens": lens,
        "norms": [_rounded(state[0].float().norm(dim=-1)) for state in residuals],
    }


@contextmanager
def _last_residual(model: Any) -> Iterator[list[Any]]:
    """The residual stream after the last layer: what the last norm is given, [1, T, width]."""
    seen: list[Any] = []
    hook = last_norm(model).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def attention_by_layer(config: Any, attentions: Sequence[Any]) -> dict[int, Any]:
    """The number of a layer -> its attention weights; {} if they cannot be told apart.

    Some hybrid models list None for a layer without attention, others leave it out.
    """
    if len(attentions) == config.num_hidden_layers:
        numbers = list(range(len(attentions)))
    else:
        types = getattr(config, "layer_types", None) or ()
        numbers = [number for number, name in enumerate(types) if name in WITH_ATTENTION]
    if len(numbers) != len(attentions):
        return {}
    pairs = zip(numbers, attentions, strict=True)
    return {number: weights for number, weights in pairs if weights is not None}


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
