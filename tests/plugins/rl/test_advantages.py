"""The arithmetic of PPO beside a case worked out by hand: two answers of five tokens."""

from __future__ import annotations

import pytest
import torch

from llmstages.plugins.rl.advantages import (
    explained_variance,
    generalized_advantages,
    token_rewards,
    value_losses,
    whitened,
)

# The second answer is token, text of a tool, token, token, padding.
MASK = torch.tensor([[1.0, 1, 1, 1, 1], [1, 0, 1, 1, 0]])
VALUES = torch.tensor([[0.5, 0.5, 1.0, 0.0, 1.0], [0.2, 9.0, 0.4, -0.2, 7.0]])
KL = torch.tensor([[0.2, 0.0, -0.1, 0.0, 0.4], [0.0, 5.0, 0.2, 0.0, 3.0]])
SCORES = torch.tensor([2.0, -1.0])
REWARDS = [[-0.1, 0.0, 0.05, 0.0, 1.8], [0.0, 0.0, -0.1, -1.0, 0.0]]
# With gamma 1 and lambda 0.5, from the last token: 1.8 - 1.0 = 0.8; 1.0 - 0.0 + 0.4 = 1.4;
# 0.05 + 0.0 - 1.0 + 0.7 = -0.25; 1.0 - 0.5 - 0.125 = 0.375; -0.1 + 0.5 - 0.5 + 0.1875 = 0.0875.
# Of the second: -1.0 + 0.2 = -0.8; -0.1 - 0.2 - 0.4 - 0.4 = -1.1; 0.4 - 0.2 - 0.55 = -0.35.
ADVANTAGES = [[0.0875, 0.375, -0.25, 1.4, 0.8], [-0.35, 0.0, -1.1, -0.8, 0.0]]
RETURNS = [[0.5875, 0.875, 0.75, 1.4, 1.8], [-0.15, 0.0, -0.7, -1.0, 0.0]]


def close(numbers, wanted):
    return torch.allclose(numbers, torch.tensor(wanted), atol=1e-6, rtol=0)


def alone(numbers):
    return numbers


def test_a_token_is_paid_the_penalty_and_the_last_one_also_the_score():
    assert close(token_rewards(SCORES, KL, MASK, 0.5), REWARDS)


def test_an_answer_without_a_token_of_the_policy_is_paid_nothing():
    assert close(token_rewards(SCORES, KL, torch.zeros_like(MASK), 0.5), [[0.0] * 5] * 2)


def test_advantages_and_returns_of_the_case():
    advantages, returns = generalized_advantages(torch.tensor(REWARDS), VALUES, MASK, 1.0, 0.5)
    assert close(advantages, ADVANTAGES)
    assert close(returns, RETURNS)


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.5, 0.0)])
def test_text_of_a_tool_is_stepped_over(gamma, lam):
    """As if the tokens of the policy stood side by side."""
    draw = torch.Generator().manual_seed(0)
    mask = (torch.rand(16, 12, generator=draw) < 0.6).float()
    mask[:, 0] = 1
    rewards, values = (torch.randn(16, 12, generator=draw) for _ in range(2))
    advantages, _ = generalized_advantages(rewards * mask, values, mask, gamma, lam)
    for row in range(16):
        own = mask[row].bool()
        beside, _ = generalized_advantages(
            rewards[row, own][None],
            values[row, own][None],
            torch.ones(1, int(own.sum())),
            gamma,
            lam,
        )
        assert torch.allclose(advantages[row, own], beside[0], atol=1e-6)
        assert not advantages[row, ~own].any()


def test_with_lambda_one_the_return_is_what_came_of_it():
    _, returns = generalized_advantages(torch.tensor(REWARDS), VALUES, MASK, 1.0, 1.0)
    assert close(returns, [[1.75, 1.85, 1.85, 1.8, 1.8], [-1.1, 0.0, -1.1, -1.0, 0.0]])


def test_whitened_advantages_of_the_case():
    numbers = whitened(torch.tensor(ADVANTAGES), MASK, alone)
    own = [0.0875, 0.375, -0.25, 1.4, 0.8, -0.35, -1.1, -0.8]
    mean = sum(own) / 8  # 0.0203125
    variance = sum((number - mean) ** 2 for number in own) / 7
    assert numbers[0, 3].item() == pytest.approx((1.4 - mean) / variance**0.5, abs=1e-6)
    assert numbers[1, 2].item() == pytest.approx((-1.1 - mean) / variance**0.5, abs=1e-6)
    assert numbers[1, 1] == numbers[1, 4] == 0


def test_a_value_gains_nothing_from_leaving_its_range():
    new = torch.tensor([[0.9, 0.5, 1.0, 1.0, 1.0]])
    losses = value_losses(new, VALUES[:1], torch.tensor(RETURNS[:1]), 0.2)
    # The first moved past its return of 0.5875, so its own error counts: 0.3125 squared, halved.
    # The fourth moved from 0 to 1 for a return of 1.4: what counts is the error at 0.2.
    assert close(losses, [[0.048828125, 0.0703125, 0.03125, 0.72, 0.32]])


def test_explained_variance():
    returns = torch.tensor(RETURNS)
    assert explained_variance(returns, returns, MASK, alone) == 1.0
    mean = (returns * MASK).sum() / MASK.sum()
    assert explained_variance(mean.expand(2, 5), returns, MASK, alone) == pytest.approx(0, abs=1e-6)
    assert explained_variance(VALUES, torch.ones(2, 5), MASK, alone) == 0.0
