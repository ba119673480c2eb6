"""What a model expects at each position of a text: candidates, probabilities, entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.serve import fields
from llmstages.serve.answers import answer_object
from llmstages.serve.pool import LoadedModel
from llmstages.studio.tokenizers import shown_tokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

MOST_TOKENS = 512  # of a text
MOST_CANDIDATES = 20
MOST_NEW = 64  # tokens that a branch is continued by


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/next_token and /api/branch."""
    from starlette.routing import Route

    async def expectations(request: Request) -> Response:
        return await answer_object(request, lambda given: expected(studio, given))

    async def branch(request: Request) -> Response:
        return await answer_object(request, lambda given: continued(studio, given))

    return [
        Route("/api/next_token", expectations, methods=["POST"]),
        Route("/api/branch", branch, methods=["POST"]),
    ]


def ids_of(loaded: LoadedModel, given: dict[str, Any], most: int = MOST_TOKENS) -> list[int]:
    """The token ids that a request means: ``ids`` themselves, or those of ``text``.

    A text begins as documents do in training; with ``chat`` it is what the user says, rendered by
    the chat template up to where the model answers.

    Raises:
        StageError: there is neither, or they are too many for this view or the model.
    """
    from llmstages.text import chat_format
    from llmstages.text.messages import message

    tokenizer = loaded.session.tokenizer
    if given.get("ids") is not None:
        ids = given["ids"]
        size = loaded.session.model.config.vocab_size
        is_list = isinstance(ids, list) and all(type(id) is int and 0 <= id < size for id in ids)
        if not is_list or not ids:
            raise StageError(f"ids must be a list of token ids, 0 to {size - 1}")
    elif given.get("chat"):
        turns = [message("user", fields.text(given, "text"))]
        ids = chat_format.prompt_ids(tokenizer, [turns])[0]
    else:
        begin = chat_format.begin_ids(tokenizer)
        ids = [*begin, *chat_format.encode_texts(tokenizer, [fields.text(given, "text")])[0]]
    limit = min(most, loaded.session.context)
    if len(ids) > limit:
        raise StageError(f"the text has {len(ids)} tokens; at most {limit} are looked at here")
    return ids


def expected(studio: Studio, given: dict[str, Any]) -> dict[str, Any]:
    """For each position the most likely next tokens, the entropy, and what really follows.

    Returns:
        ``tokens``: those of the text; ``positions``: for each of them ``entropy`` in bits,
        ``candidates`` (tokens with ``probability``), and of the token that follows in the text
        ``probability`` and ``rank`` (1: the most likely one; None at the end).
    """
    import torch

    from llmstages.serve.replies import TURNS

    loaded = studio.pool.get(fields.text(given, "model", 500))
    top = fields.whole(given, "top", 10, 1, MOST_CANDIDATES)
    ids = ids_of(loaded, given)
    model, tokenizer = loaded.session.model, loaded.session.tokenizer
    with TURNS.one_reply(), torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float()
    log_probabilities = torch.log_softmax(logits, -1)
    probabilities = log_probabilities.exp()
    # 0 log 0 is 0: a token that is ruled out adds nothing.
    terms = torch.where(probabilities > 0, probabilities * log_probabilities, 0.0)
    entropy = -terms.sum(-1) / torch.log(torch.tensor(2.0))
    best = probabilities.topk(min(top, probabilities.shape[-1]), -1)
    positions = []
    for place in range(len(ids)):
        candidates = shown_tokens(tokenizer, best.indices[place].tolist())
        for candidate, probability in zip(candidates, best.values[place].tolist(), strict=True):
            candidate["probability"] = probability
        position: dict[str, Any] = {"entropy": entropy[place].item(), "candidates": candidates}
        if place + 1 < len(ids):
            actual = probabilities[place, ids[place + 1]]
            position["probability"] = actual.item()
            position["rank"] = int((probabilities[place] > actual).sum()) + 1
        positions.append(position)
    return {"tokens": shown_tokens(tokenizer, ids), "positions": positions, "ids": ids}


def continued(studio: Studio, given: dict[str, Any]) -> dict[str, Any]:
    """The ids of a text continued by the model: ``{"ids": [...]}``. Stop tokens end it."""
    import torch

    from llmstages.serve.replies import TURNS
    from llmstages.text import generate

    loaded = studio.pool.get(fields.text(given, "model", 500))
    count = fields.whole(given, "count", 16, 1, MOST_NEW)
    temperature = fields.temperature(given)
    seed = fields.whole(given, "seed", 0, 0, 2**63 - 1)
    ids = ids_of(loaded, given)
    session = loaded.session
    room = min(MOST_TOKENS, session.context) - len(ids)
    if room < 1:
        raise StageError(f"the text already has {len(ids)} tokens; nothing fits after it")
    prompt = torch.tensor([ids], device=session.model.device)
    with TURNS.one_reply(seed), torch.no_grad():
        made = session.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=min(count, room),
            **generate.settings(session.model, session.tokenizer, temperature),
        )
    return {"ids": made[0].tolist()}
