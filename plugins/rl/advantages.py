"""The arithmetic of PPO: rewards of tokens, advantages, the loss of the critic, and how good it is.

Arrays are tensors of shape [answers, tokens]. ``mask`` is 1 where the policy wrote a token; what a
tool or an environment wrote in between is stepped over, as if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Total = Callable[[Any], Any]  # adds up a tensor over all processes


def token_rewards(scores: Any, kl: Any, mask: Any, beta: float) -> Any:
    """What each token is paid: the KL penalty, and the last one also the score of the answer.

    As in InstructGPT (Ouyang et al. 2022, equation 2), where the penalty is spread over tokens.

    Args:
        scores: [answers], the rewards of whole answers.
        kl: [answers, tokens], log probability of the policy less that of the reference.
        mask: [answers, tokens], 1 where the policy wrote the token.
        beta: weight of the penalty.

    Returns:
        [answers, tokens]; 0 outside of the mask.
    """
    import torch

    rewards = -beta * kl * mask
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask * positions).argmax(dim=1)
    wrote_any = mask.sum(dim=1) > 0
    rows = torch.arange(len(scores), device=mask.device)
    rewards[rows, last] += torch.where(wrote_any, scores, torch.zeros_like(scores))
    return rewards


def generalized_advantages(
    rewards: Any, values: Any, mask: Any, gamma: float, lam: float
) -> tuple[Any, Any]:
    """Advantages (GAE; Schulman et al. 2016, equation 16) and the returns that a critic learns.

    Args:
        rewards: [answers, tokens].
        values: [answers, tokens], what the critic expects before the token is written.
        mask: [answers, tokens], 1 where the policy wrote the token.
        gamma: discount of one token.
        lam: 1 looks at rewards alone, 0 at the value of the next state alone.

    Returns:
        (advantages, returns), each [answers, tokens] and 0 outside of the mask.
    """
    import torch

    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    for place in reversed(range(values.shape[1])):
        surprise = rewards[:, place] + gamma * next_value - values[:, place]
        advantage = surprise + gamma * lam * next_advantage
        is_own = mask[:, place].bool()
        advantages[:, place] = torch.where(is_own, advantage, advantages[:, place])
        next_advantage = torch.where(is_own, advantage, next_advantage)
        next_value = torch.where(is_own, values[:, place], next_value)
    return advantages, (advantages + values) * mask


def whitened(numbers: Any, mask: Any, total: Total) -> Any:
    """The numbers with mean 0 and variance 1 over the mask of all processes; 0 outside of it.

    Args:
        numbers: [answers, tokens].
        mask: [answers, tokens].
        total: adds up over processes.
    """
    count, mean, variance = masked_moments(numbers, mask, total)
    if count < 2:
        return numbers * mask
    return (numbers - mean) * (variance + 1e-8).rsqrt() * mask


def masked_moments(numbers: Any, mask: Any, total: Total) -> tuple[Any, Any, Any]:
    """(count, mean, variance) of the numbers inside the mask over all processes.

    The variance is that of a sample (divided by count - 1), as in TRL.
    """
    count = total(mask.sum())
    mean = total((numbers * mask).sum()) / count.clamp(min=1)
    squares = total(((numbers - mean).square() * mask).sum())
    return count, mean, squares / (count - 1).clamp(min=1)


def value_losses(values: Any, old_values: Any, returns: Any, cliprange_value: float) -> Any:
    """The loss of the critic for each token, which gains nothing from leaving the range.

    Half the larger squared error of the value and of the value held within ``cliprange_value`` of
    the old one (Schulman et al. 2017; as in OpenAI's baselines and in TRL's PPOTrainer).

    Args:
        values: [answers, tokens], of the critic as it is now.
        old_values: [answers, tokens], of the critic when the answers were sampled.
        returns: [answers, tokens].
        cliprange_value: how far from the old value a new one may go, in units of the reward.
    """
    import torch

    held = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    return 0.5 * torch.max((values - returns).square(), (held - returns).square())


def explained_variance(values: Any, returns: Any, mask: Any, total: Total) -> float:
    """Share of the variance of returns that the critic foresaw: 1 is all, 0 no better than a mean.

    0 where the returns do not vary.
    """
    _, _, of_returns = masked_moments(returns, mask, total)
    _, _, of_errors = masked_moments(returns - values, mask, total)
    return float(1 - of_errors / of_returns) if of_returns > 1e-12 else 0.0
