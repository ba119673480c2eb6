"""What an answer is paid that was cut at its longest length, before it ended.

Its text is not an answer, and a reward cannot see that: a reward model scores it with an end that
was never said, so a policy may learn never to end. Three ways are in use: to pay less for it
(``penalty``), to leave it out of the loss (``mask``, the overlong filtering of DAPO, Yu et al.
2025, section 3.4), and to do as if it had ended (``none``).
"""

from __future__ import annotations

from typing import Any

POLICIES = ("penalty", "mask", "none")
REWARD = "truncated"  # name of the reward that holds the penalty, beside those of the config


def pay_truncated(scores: Any, ended: Any, weights: Any, penalty: float) -> Any:
    """The scores of an update, with those of truncated answers replaced.

    From each reward a truncated answer gets the worst score of the answers that ended, and
    ``penalty`` less in the sum. Scores of rewards have no common scale, so nothing else is sure to
    be less than what is paid for an answer.

    Args:
        scores: [answers, rewards], NaN where a reward abstained; the last reward is that of the
            penalty.
        ended: [answers], whether each ended by itself.
        weights: [rewards], of the rewards in the sum.
        penalty: how much less than the worst, in units of the sum.

    Returns:
        A tensor of the shape of ``scores``.
    """
    import torch

    compared = scores[ended] if ended.any() else scores
    highest = compared.nan_to_num(nan=-torch.inf).amax(0)
    lowest = compared.nan_to_num(nan=torch.inf).amin(0)
    worst = torch.where(weights < 0, highest, lowest)
    worst = torch.where(worst.isfinite(), worst, torch.nan)  # all abstained
    paid = torch.where(ended.unsqueeze(1), scores, worst)
    paid[:, -1] = torch.where(ended, 0.0, -penalty)
    return paid


def leave_out_abstained(scores: Any, weights: Any) -> Any:
    """The scores with all of an answer NaN where every paid reward abstained.

    Trainers leave out answers of which nothing is known. The place of the penalty and the rewards
    that are only watched say nothing about what an answer is worth.

    Args:
        scores: [answers, rewards], as for ``pay_truncated``.
        weights: [rewards].
    """
    import torch

    paid = weights != 0
    paid[-1] = False
    if not paid.any():
        return scores
    abstained = scores[:, paid].isnan().all(dim=1, keepdim=True)
    return torch.where(abstained, torch.nan, scores)


def no_reward(completions: Any, **_: Any) -> list[float]:
    """The place of the penalty among the rewards of a trainer, which ``pay_truncated`` fills."""
    return [0.0] * len(completions)


no_reward.__name__ = REWARD  # TRL logs a reward under the name of its function
