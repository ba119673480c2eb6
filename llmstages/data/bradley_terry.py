"""Strengths of players from comparisons of pairs, with intervals (Bradley and Terry 1952).

Player i beats player j with the probability 1 / (1 + exp(s_j - s_i)). The strengths s are those of
maximum likelihood, found by Newton's method; their mean is 0. A tie is half a win for each, as in
Chatbot Arena (Chiang et al. 2024). With many ties strengths lie closer together than without, but
their order keeps its meaning: more points against the same players. Two things are added:

- A player who never loses would be infinitely strong (Ford 1957; Hunter 2004, assumption 1). So
  each has also drawn ``prior`` games against a player of strength 0, which hardly moves anybody who
  played dozens of games.
- Comparisons of the answers to one prompt depend on each other: who answers it well wins against
  all others at once. So the bootstrap (Efron 1979) draws whole prompts, not comparisons; intervals
  over comparisons are far too narrow (benchmarks/arena.py measures both).

Left out on purpose: a parameter for ties (Rao and Kupper 1967; Davidson 1970), which needs a model
of how often a judge is undecided, and strengths that change while votes come in (Elo). The interval
of a player who won or lost everything says little: a bootstrap has never seen it otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from llmstages.core.errors import StageError
from llmstages.data.intervals import Z_95

PRIOR = 1.0  # drawn games against an average player
DRAWS = 1000  # of the bootstrap
MEAN_RATING = 1000.0
RATING_UNIT = 400 / math.log(10)  # Elo's scale: 400 points are odds of 10 to 1
LARGEST_STEP = 2.0  # of Newton's method, which overshoots where all games are won
MAX_STEPS = 100
PRECISE = 1e-9


class Comparison(NamedTuple):
    """Two players at one prompt.

    Attributes:
        prompt: what comparisons at the same prompt have in common.
        first, second: names of players.
        result: points of the first: 1 won, 0.5 tied, 0 lost.
    """

    prompt: Hashable
    first: str
    second: str
    result: float


@dataclass(frozen=True)
class Rating:
    """A player in the ranking.

    Attributes:
        name: of the player.
        rank: 1 for the strongest.
        strength, low, high: log-odds against the average player, with the 95 % interval.
    """

    name: str
    rank: int
    strength: float
    low: float
    high: float


def rate(
    comparisons: Sequence[Comparison],
    players: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    prior: float = PRIOR,
) -> list[Rating]:
    """All players, the strongest first.

    Args:
        comparisons: at least one for each player, at two prompts or more.
        players: names, each once.
        draws: of the bootstrap over prompts.
        seed: of these draws.
        prior: drawn games of each player against one of strength 0, above 0.

    Raises:
        StageError: players that no chain of comparisons joins, or a single prompt.
    """
    require_connected(comparisons, players)
    wins = points_by_prompt(comparisons, players)
    if len(wins) < 2:
        raise StageError(
            "all comparisons are about one prompt, which says nothing about others, so strengths "
            "would have no interval. Compare answers to two prompts at least, better to dozens"
        )
    strengths = fit(wins.sum(axis=0)[None], prior)[0]
    lows, highs = intervals(bootstrap(wins, draws, seed, prior), len(wins))
    order = sorted(range(len(players)), key=lambda place: (-strengths[place], players[place]))
    return [
        Rating(
            players[place],
            rank,
            float(strengths[place]),
            float(lows[place]),
            float(highs[place]),
        )
        for rank, place in enumerate(order, 1)
    ]


def elo(strength: float) -> float:
    """A strength on Elo's scale, where the average player has 1000."""
    return MEAN_RATING + RATING_UNIT * strength


def points_by_prompt(comparisons: Sequence[Comparison], players: Sequence[str]) -> Any:
    """Points of each player (row) against each other one (column), by prompt.

    Returns:
        An array of prompts x players x players.
    """
    import numpy as np

    places = {name: place for place, name in enumerate(players)}
    prompts: dict[Hashable, int] = {}
    for comparison in comparisons:
        prompts.setdefault(comparison.prompt, len(prompts))
    points = np.zeros((len(prompts), len(players), len(players)))
    for prompt, first, second, result in comparisons:
        points[prompts[prompt], places[first], places[second]] += result
        points[prompts[prompt], places[second], places[first]] += 1 - result
    return points


def fit(points: Any, prior: float = PRIOR) -> Any:
    """The strengths that make the points likeliest, their mean 0.

    Args:
        points: batch x players x players: points of the row against the column. A batch of
            tables is solved at once.
        prior: drawn games of each player against one of strength 0, above 0.

    Returns:
        An array of batch x players.
    """
    import numpy as np

    games = points + points.transpose(0, 2, 1)
    scored = points.sum(axis=2)
    strengths = np.zeros(scored.shape)
    diagonal = np.arange(scored.shape[1])
    for _ in range(MAX_STEPS):
        likely = 1 / (1 + np.exp(strengths[:, None, :] - strengths[:, :, None]))
        likely_draw = 1 / (1 + np.exp(-strengths))
        slope = scored - (games * likely).sum(axis=2) + prior * (0.5 - likely_draw)
        weights = games * likely * (1 - likely)
        curvature = -weights
        curvature[:, diagonal, diagonal] += weights.sum(axis=2)
        curvature[:, diagonal, diagonal] += prior * likely_draw * (1 - likely_draw)
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        strengths += np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        if np.abs(step).max() < PRECISE:
            break
    return strengths - strengths.mean(axis=1, keepdims=True)


def bootstrap(points: Any, draws: int, seed: int, prior: float = PRIOR) -> Any:
    """Strengths from prompts that are drawn again and again: an array of draws x players.

    Args:
        points: prompts x players x players, as of ``points_by_prompt``.
    """
    import numpy as np

    prompts, players, _ = points.shape
    often = np.random.default_rng(seed).multinomial(prompts, [1 / prompts] * prompts, size=draws)
    drawn = often @ points.reshape(prompts, -1)
    return fit(drawn.reshape(draws, players, players), prior)


def intervals(drawn: Any, prompts: int) -> tuple[Any, Any]:
    """The ends of the 95 % intervals: (low, high) of each player.

    They are percentiles of the bootstrap, moved outwards since a few prompts vary less among
    themselves than all of their kind: the expanded percentile interval of Hesterberg 2015 (What
    teachers should know about the bootstrap, section 5.3).

    Args:
        drawn: draws x players.
        prompts: how many were drawn from.
    """
    import numpy as np

    degrees = prompts - 1
    # Student's quantile from the normal one, Abramowitz and Stegun 1964, 26.7.5
    student = (
        Z_95
        + (Z_95**3 + Z_95) / (4 * degrees)
        + (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / (96 * degrees**2)
    )
    deviations = student * math.sqrt(prompts / degrees)
    tail = 100 * (1 - math.erf(deviations / math.sqrt(2))) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail], axis=0)
    return low, high


def require_connected(comparisons: Sequence[Comparison], players: Sequence[str]) -> None:
    """Raise StageError where no chain of comparisons joins two players: nothing ranks them."""
    groups = {name: {name} for name in players}
    for comparison in comparisons:
        first, second = groups[comparison.first], groups[comparison.second]
        if first is not second:
            first |= second
            groups |= dict.fromkeys(first, first)
    parts = {id(group): sorted(group) for group in groups.values()}
    if len(parts) > 1:
        shown = "; ".join(", ".join(group) for group in parts.values())
        raise StageError(
            f"no chain of comparisons joins these groups, so nothing ranks one against another: "
            f"{shown}. Compare more pairs (more prompts, more pairs of each prompt), or rank each "
            "group by itself"
        )


def kendall_tau(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Agreement of two rankings: 1 the same order, -1 the reverse (Kendall 1945, tau-b).

    Equal values are ties. Players that only one of them has do not count.

    Returns:
        None where one of them has all players equal, or fewer than two are common.
    """
    common = sorted(set(first) & set(second))
    agreement = 0
    untied_first = 0
    untied_second = 0
    for one, other in combinations(common, 2):
        sign_first = _sign(first[one] - first[other])
        sign_second = _sign(second[one] - second[other])
        agreement += sign_first * sign_second
        untied_first += abs(sign_first)
        untied_second += abs(sign_second)
    if not untied_first or not untied_second:
        return None
    return agreement / math.sqrt(untied_first * untied_second)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
