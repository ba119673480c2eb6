"""What a teacher must be so that a policy can learn from it token by token.

Both distributions are over the same tokens, so the tokenizers must cut every text alike and the
models must have as many logits. That is found before training, from the files alone.
"""

from __future__ import annotations

import json
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context

CUTTING = ("normalizer", "pre_tokenizer", "model")  # parts of a tokenizer.json that decide on ids


def require_teacher(ctx: Context, longest: int) -> None:
    """Raise StageError if the teacher cannot score what the policy writes.

    Args:
        ctx: with the inputs ``policy`` and ``teacher``.
        longest: tokens of the longest prompt with its answer.
    """
    from llmstages.train.trainer import context_length, load_tokenizer

    policy, teacher = ctx.one("policy"), ctx.one("teacher")
    ours, theirs = load_tokenizer(policy.path), load_tokenizer(teacher.path)
    difference = tokenizer_difference(ours, theirs)
    if difference:
        raise StageError(
            f"{ctx.step}: {policy.name} and its teacher {teacher.name} have different tokenizers "
            f"({difference}), and a distribution over other tokens says nothing about ours. Take a "
            "teacher of the same family, or let it answer the prompts (dialogues=synthesize) and "
            "train on its texts with sft"
        )
    sizes = vocabulary(policy), vocabulary(teacher)
    if sizes[0] != sizes[1]:
        raise StageError(
            f"{ctx.step}: {policy.name} has {sizes[0]} logits and its teacher {teacher.name} "
            f"{sizes[1]}, though they have the same tokenizer; pad the embeddings of one of them "
            "(resize_token_embeddings)"
        )
    context = context_length(teacher)
    if context and longest > context:
        raise StageError(
            f"{ctx.step}: the teacher {teacher.name} reads {context} tokens, and the longest "
            f"prompt with its answer has {longest}; lower {ctx.step}.max_completion_length"
        )
    if ours.chat_template != theirs.chat_template:
        ctx.say(
            f"{ctx.step}: the teacher {teacher.name} reads dialogues as the template of "
            f"{policy.name} writes them, which is not its own"
        )


def tokenizer_difference(first: Any, second: Any) -> str:
    """How two tokenizers differ in the ids that they give texts; "" if they do not."""
    ours, theirs = first.get_vocab(), second.get_vocab()
    if ours != theirs:
        differing = sum(ours.get(token) != id for token, id in theirs.items())
        return f"{len(ours)} and {len(theirs)} tokens, {differing} of the teacher's are others"
    parts = [_cutting_parts(tokenizer) for tokenizer in (first, second)]
    differing_parts = [name for name in CUTTING if parts[0].get(name) != parts[1].get(name)]
    return f"another {differing_parts[0]}" if differing_parts else ""


def _cutting_parts(tokenizer: Any) -> dict[str, Any]:
    """What a fast tokenizer cuts texts by; {} for one written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()) if backend is not None else {}


def vocabulary(artifact: Artifact) -> int:
    """Logits of a model, as its config.json says; 0 if it does not."""
    config = json.loads((artifact.path / "config.json").read_text(encoding="utf-8"))
    of_text = config.get("text_config") or config
    return int(of_text.get("vocab_size") or 0)
