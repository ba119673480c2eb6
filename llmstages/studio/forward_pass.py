"""One forward pass of a real model, step by step: what each part takes, gives, and is for.

Hooks on the parts of the model record their outputs in the order in which they are called. Parts
are recognized by their place (embedding, layer, output) and by the names that architectures of
transformers have in common; a part with another name is shown as what it is, without a story.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.serve import fields
from llmstages.serve.answers import answer_object
from llmstages.studio.inside import last_norm
from llmstages.studio.next_token import ids_of
from llmstages.studio.tokenizers import shown_tokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

MOST_TOKENS = 64
MOST_VALUES = 96  # of a vector that are shown
MOST_CANDIDATES = 10
DIGITS = 4

ABOUT = {
    "embedding": "Each token id picks one row of a table: the vector that stands for the token. "
    "From here on a position is a vector, the residual stream.",
    "norm": "Scales each vector to a common length, so that the next part sees numbers of one "
    "size. The residual stream itself is left as it is.",
    "query": "Makes of each vector a query for every head: what this position looks for.",
    "key": "Makes of each vector a key for every head: what this position can be found by.",
    "value": "Makes of each vector a value for every head: what this position passes on.",
    "qkv": "Makes queries, keys and values of all heads by one multiplication.",
    "attention output": "Brings what the heads have collected back into the residual stream.",
    "attention": "Each position takes a weighted mean of the values of the positions before it, "
    "the more of those whose keys fit its query. It is the only part where positions meet. Its "
    "output is added to the residual stream.",
    "up": "Widens each vector, so that many features can be told apart.",
    "gate": "Decides for each of the wide features how much of it passes.",
    "down": "Brings the features that passed back to the width of the residual stream.",
    "mlp": "Works on each position by itself: widen, keep some features, narrow. Much of what a "
    "model knows is held to be stored here. Its output is added to the residual stream.",
    "layer": "The residual stream after this layer: what came in, plus what attention and MLP "
    "added.",
    "last norm": "The norm before the output.",
    "output": "Compares each vector with one row for every token of the vocabulary: the scores "
    "(logits). Softmax turns them into probabilities, from which the next token is chosen.",
}
# The last part of a module's name -> kind, by the names in transformers.
KINDS = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "c_attn": "qkv",
    "qkv_proj": "qkv",
    "query_key_value": "qkv",
    "o_proj": "attention output",
    "up_proj": "up",
    "c_fc": "up",
    "dense_h_to_4h": "up",
    "fc1": "up",
    "gate_proj": "gate",
    "down_proj": "down",
    "dense_4h_to_h": "down",
    "fc2": "down",
    "self_attn": "attention",
    "attn": "attention",
    "self_attention": "attention",
    "attention": "attention",
    "mlp": "mlp",
}


@dataclass
class Part:
    """A part of the model that is watched.

    Attributes:
        name: as in the model: ``layers.0.mlp``.
        kind: a key of ABOUT, or "".
        layer: its number; -1 outside of the layers.
        module: the part itself.
    """

    name: str
    kind: str
    layer: int
    module: Any


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/forward: {model, text, position} -> the steps of one pass."""
    from starlette.routing import Route

    async def forward(request: Request) -> Response:
        return await answer_object(request, lambda given: walk(studio, given))

    return [Route("/api/forward", forward, methods=["POST"])]


def walk(studio: Studio, given: dict[str, Any]) -> dict[str, Any]:
    """The steps of a pass, in the order in which the model takes them.

    Returns:
        ``tokens``, ``position`` and ``steps``, each with its ``name``, ``kind``, ``layer``,
        ``about``, ``shape``, ``parameters``, and of the vector at the position its ``norm`` and
        first ``values``; ``next``: the likeliest next tokens.
    """
    import torch

    from llmstages.serve.replies import TURNS

    loaded = studio.pool.get(fields.text(given, "model", 500))
    ids = ids_of(loaded, given, MOST_TOKENS)
    position = fields.whole(given, "position", len(ids) - 1, 0, len(ids) - 1)
    model, tokenizer = loaded.session.model, loaded.session.tokenizer
    steps: list[dict[str, Any]] = []
    with TURNS.one_reply(), torch.no_grad():
        hooks = [
            part.module.register_forward_hook(_recorder(part, position, steps))
            for part in parts_of(model)
        ]
        try:
            output = model(input_ids=torch.tensor([ids], device=model.device))
        finally:
            for hook in hooks:
                hook.remove()
    best = output.logits[0, position].float().softmax(-1).topk(MOST_CANDIDATES)
    candidates = shown_tokens(tokenizer, best.indices.tolist())
    for candidate, probability in zip(candidates, best.values.tolist(), strict=True):
        candidate["probability"] = probability
    return {
        "tokens": shown_tokens(tokenizer, ids),
        "position": position,
        "steps": steps,
        "next": candidates,
    }


def _recorder(part: Part, position: int, steps: list[dict[str, Any]]) -> Callable[..., None]:
    """A forward hook that notes the output of a part."""
    parameters = sum(weight.numel() for weight in part.module.parameters())

    def record(module: Any, inputs: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        vector = tensor.reshape(-1, tensor.shape[-1])[position].float()
        values = [round(value, DIGITS) for value in vector[:MOST_VALUES].tolist()]
        steps.append(
            {
                "name": part.name,
                "kind": part.kind or "part",
                "layer": part.layer,
                "about": ABOUT.get(part.kind, f"A part of the class {type(module).__name__}."),
                "shape": list(tensor.shape),
                "parameters": parameters,
                "norm": round(vector.norm().item(), DIGITS),
                "values": values,
            }
        )

    return record


def parts_of(model: Any) -> list[Part]:
    """The parts of a model that are watched.

    Raises:
        StageError: its layers are not found.
    """
    parts = [Part("embedding", "embedding", -1, model.get_input_embeddings())]
    for number, layer in enumerate(layers_of(model)):
        for name, module in layer.named_modules():
            kind = _kind_of(name, module)
            if kind:
                parts.append(Part(f"layer {number}: {name}", kind, number, module))
        parts.append(Part(f"layer {number}", "layer", number, layer))
    parts.append(Part("last norm", "last norm", -1, last_norm(model)))
    parts.append(Part("output", "output", -1, model.get_output_embeddings()))
    return parts


def _kind_of(name: str, module: Any) -> str:
    """The kind of a part within a layer, "" if it is not watched."""
    last = name.rpartition(".")[2]
    if last == "c_proj":  # GPT-2 has it in both
        return "down" if ".mlp" in f".{name}" else "attention output"
    if last in ("dense", "out_proj") and "att" in name:  # a recurrent mixer has one too
        return "attention output"
    if last in KINDS:
        return KINDS[last]
    is_norm = "norm" in type(module).__name__.lower()
    return "norm" if is_norm and "." not in name else ""


def layers_of(model: Any) -> Any:
    """The list of a model's layers.

    Raises:
        StageError: no list has as many members as the config says.
    """
    from torch.nn import ModuleList

    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, ModuleList) and len(module) == count:
            return module
    raise StageError(f"{type(model).__name__} has its layers in a form that is not known")
