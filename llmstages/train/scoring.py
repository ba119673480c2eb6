"""Scores of a reward model for rendered sequences, shared by reward training and RL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.text.messages import Message, message


def answer_span(rendered: Any, tokenizer: Any) -> slice | None:
    """Where the last answer of a rendered dialogue is, its end of turn included.

    It is the last run of supervised tokens, up to the token that ends the turn. What a template
    writes after that, often a newline, is not a part of it: at inference generation has stopped
    there. Supervised tokens before that run belong to earlier answers.

    Returns:
        The positions of its tokens; None if nothing is supervised.
    """
    from llmstages.text import chat_format

    supervised = rendered.supervised
    if not any(supervised):
        return None
    stop = len(supervised) - supervised[::-1].index(True)
    start = stop
    while start and supervised[start - 1]:
        start -= 1
    end = chat_format.control_tokens(tokenizer).end
    answer = rendered.ids[start:stop]
    if end in answer:
        stop -= answer[::-1].index(end)
    return slice(start, stop)


def scored_ids(rendered: Any, tokenizer: Any) -> list[int]:
    """The ids of a rendered dialogue up to the end of its last answer, which is the token scored.

    The state of what templates write behind it would say the same of every answer.
    """
    span = answer_span(rendered, tokenizer)
    return rendered.ids[: span.stop] if span else list(rendered.ids)


def set_scoring_pad(model: Any, tokenizer: Any, sequences: Sequence[Sequence[int]]) -> None:
    """Give model and tokenizer a padding token that no sequence ends with.

    A sequence classifier of transformers scores the last token that is not padding. Many chat
    models pad with the very token that ends a turn, so that the token before it would be scored,
    and nobody could tell a finished answer from one that was cut. Tokens that begin turns serve
    as padding just as well, since something always follows them.

    Raises:
        StageError: every special token ends some sequence.
    """
    last = {ids[-1] for ids in sequences if ids}
    candidates = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id]
    candidates += sorted(tokenizer.added_tokens_decoder)
    usable = [id for id in candidates if id is not None and id not in last]
    if not usable:
        raise StageError(
            "the tokenizer has no special token to pad with but those that end an answer; add one "
            "(tokenizer.add_special_tokens) and save the model with it"
        )
    if usable[0] != tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(usable[0])
    model.config.get_text_config().pad_token_id = usable[0]


def open_reward_model(artifact: Artifact) -> tuple[Any, Any]:
    """A reward model, ready to score, and its tokenizer.

    Raises:
        StageError: it has no head that scores (transformers would make one up), or it pads with
            the token that ends a turn, so that a score would be read at the wrong place.
    """
    from llmstages.text import chat_format
    from llmstages.train.distributed import compute_device
    from llmstages.train.trainer import load_model, load_tokenizer

    config = json.loads((artifact.path / "config.json").read_text(encoding="utf-8"))
    architectures = config.get("architectures") or ["no architecture"]
    if not architectures[0].endswith("ForSequenceClassification"):
        raise StageError(
            f"{artifact.name} is no reward model: its config names {architectures[0]}, which has "
            "no head that scores. Train one with the step `reward`"
        )
    labels = config.get("num_labels") or len(config.get("id2label") or {0: ""})
    if labels != 1:
        raise StageError(
            f"{artifact.name} is a classifier of {labels} labels; a reward model has one score"
        )
    model = load_model(artifact, None, kind="trained_reward").to(compute_device())
    tokenizer = load_tokenizer(artifact.path)
    pad = model.config.get_text_config().pad_token_id
    end = chat_format.control_tokens(tokenizer).end
    if pad is None or (pad == end and end is not None):
        raise StageError(
            f"{artifact.name} pads with {_shown_token(tokenizer, pad)}, so the score of an answer "
            "would be read before its end. Give it a padding token that ends no turn, in its "
            "config.json and its tokenizer"
        )
    # Where the two differ, the model's own decides: it looks for the last token that is not it.
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return model, tokenizer


def _shown_token(tokenizer: Any, id: int | None) -> str:
    return "nothing" if id is None else repr(tokenizer.convert_ids_to_tokens(id))


def scores(
    model: Any, tokenizer: Any, sequences: Sequence[Sequence[int]], batch: int = 64
) -> list[float]:
    """One score per sequence of token ids, padded on the right as in training.

    Args:
        model: a sequence classifier with one label.
        tokenizer: its tokenizer, which pads as the model was trained (``set_scoring_pad``).
        sequences: token ids, see ``scored_ids``.
        batch: sequences that are scored at once.
    """
    import torch

    out: list[float] = []
    model.eval()
    for start in range(0, len(sequences), batch):
        rows = sequences[start : start + batch]
        width = max(map(len, rows))
        padded, real = [], []
        for row in rows:
            padding = width - len(row)
            padded.append([*row, *[tokenizer.pad_token_id] * padding])
            real.append([1] * len(row) + [0] * padding)
        ids = torch.tensor(padded, device=model.device)
        mask = torch.tensor(real, device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        out += logits[:, 0].float().tolist()
    return out


def score_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]], answers: Sequence[str]
) -> list[float]:
    """The score of each answer after its prompt, shown exactly as in the training of the model."""
    from llmstages.text.render import render_answers

    dialogues = [
        [*prompt, message("assistant", answer)]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    rendered = render_answers(tokenizer, dialogues)
    return scores(model, tokenizer, [scored_ids(row, tokenizer) for row in rendered])
