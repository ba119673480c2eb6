"""What the logged curves of a training say: metrics of their ends, and warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SAME_REWARDS = "frac_reward_zero_std"  # share of groups whose rewards are all the same
MANY_CLIPPED = 0.5  # share of answers cut before their end from which it is said
ENDS_SHARE = 0.15  # of a curve, for the means at its beginning and end


def warnings_of(
    log: Sequence[Mapping[str, float]], curves: Mapping[str, float], config: Any
) -> Iterator[str]:
    """What made the training of little use, one sentence each.

    Args:
        log: the rows of log.jsonl.
        curves: the metrics made of them.
        config: the options of the stage.
    """
    clipped = curves.get("clipped_last", 0.0)
    if clipped >= MANY_CLIPPED:
        yield (
            f"{clipped:.0%} of the last answers were cut at max_completion_length="
            f"{config.max_completion_length} tokens, before they ended; raise it"
        )
    has_groups = config.num_generations > 1
    same = [row[SAME_REWARDS] for row in log if has_groups and SAME_REWARDS in row]
    if same and min(same) == 1.0:
        yield (
            "in no group did two answers get different rewards, so there was nothing to learn "
            "from; take easier or harder problems, or a larger num_generations"
        )


def curve_metrics(
    log: Sequence[Mapping[str, float]], rewards: Sequence[str], series: Mapping[str, str]
) -> dict[str, float]:
    """Beginning, end and highest value of each logged series; those not logged are left out.

    Args:
        log: the rows of log.jsonl.
        rewards: names of the rewards.
        series: further series -> name of their metrics.
    """
    from llmstages.train.trainer import ends_of

    curves = {"reward": "reward"}
    curves |= {f"rewards/{name}/mean": name for name in rewards}
    curves |= series
    metrics: dict[str, float] = {}
    for key, name in curves.items():
        first, last = ends_of(log, key, ENDS_SHARE)
        if math.isnan(first):
            continue
        metrics[f"{name}_first"] = first
        metrics[f"{name}_last"] = last
        metrics[f"{name}_best"] = max(row[key] for row in log if key in row)
    return metrics
