"""How far a policy is from its teacher, token by token.

The divergence is the generalized Jensen-Shannon divergence of GKD (Agarwal et al. 2024, section 2):
``beta=0`` is the forward KL(teacher || policy), which wants all that the teacher would say covered,
``beta=1`` the reverse KL(policy || teacher), which wants nothing said that the teacher would not
say, and between them both are compared with their mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ROWS = 8  # measured at once


@dataclass(frozen=True)
class Distance:
    """Means over all tokens of some answers.

    Attributes:
        divergence: of the two distributions of the next token, in nats.
        agreement: share of tokens where the likeliest one is the same.
    """

    divergence: float
    agreement: float


def token_divergence(policy: Any, teacher: Any, beta: float, temperature: float = 1.0) -> Any:
    """The divergence at each position.

    Args:
        policy: [..., vocabulary], logits.
        teacher: the same of the teacher.
        beta: 0 for forward KL, 1 for reverse KL, between for the generalized divergence.
        temperature: of both distributions.

    Returns:
        [...], in nats, never negative.
    """
    import torch

    ours = (policy.float() / temperature).log_softmax(dim=-1)
    theirs = (teacher.float() / temperature).log_softmax(dim=-1)
    if beta == 0:
        return _kl(theirs, ours)
    if beta == 1:
        return _kl(ours, theirs)
    # TRL's mixture: beta of the teacher and the rest of the policy.
    mixture = torch.logaddexp(ours + math.log(1 - beta), theirs + math.log(beta))
    return beta * _kl(theirs, mixture) + (1 - beta) * _kl(ours, mixture)


def _kl(first: Any, second: Any) -> Any:
    return (first.exp() * (first - second)).sum(dim=-1)


def measure(
    policy: Any,
    teacher: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    beta: float,
    temperature: float = 1.0,
) -> Distance:
    """The distance of two models on given answers, which neither of them has to have written.

    Args:
        policy, teacher: causal models of the same vocabulary, on one device.
        prompts: ids of each prompt.
        answers: ids of the answer to each; at least one is not empty.
        beta, temperature: as for ``token_divergence``.
    """
    import torch

    was_training = policy.training
    policy.eval()
    divergence, same, tokens = 0.0, 0, 0
    with torch.no_grad():
        for start in range(0, len(prompts), ROWS):
            part = slice(start, start + ROWS)
            ids, mask, is_answer = padded(prompts[part], answers[part], policy.device)
            ours = policy(input_ids=ids, attention_mask=mask).logits[:, :-1][is_answer]
            theirs = teacher(input_ids=ids, attention_mask=mask).logits[:, :-1][is_answer]
            divergence += token_divergence(ours, theirs, beta, temperature).sum().item()
            same += int((ours.argmax(dim=-1) == theirs.argmax(dim=-1)).sum())
            tokens += len(ours)
    policy.train(was_training)
    return Distance(divergence / tokens, same / tokens)


def padded(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], device: Any
) -> tuple[Any, Any, Any]:
    """(ids, mask, whether the next token is of the answer) of rows that are padded on the right.

    Shapes are [rows, tokens], [rows, tokens] and [rows, tokens - 1].
    """
    import torch

    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    is_answer = torch.zeros(len(prompts), max(lengths) - 1, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : lengths[row]] = torch.tensor([*prompt, *answer])
        mask[row, : lengths[row]] = 1
        is_answer[row, len(prompt) - 1 : lengths[row] - 1] = True
    return ids.to(device), mask.to(device), is_answer.to(device)
