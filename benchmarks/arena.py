"""Do the intervals of an arena hold? Simulated players of known strengths, again and again.

    python benchmarks/arena.py
    python benchmarks/arena.py --players 4 --prompts 100 --runs 2000

Each player's answer to each prompt has a quality: its strength and a Gumbel draw of its own, so
that the better of two answers wins with the probability of Bradley and Terry. The answer meets
those of all others, as in evaluate=arena, so comparisons at one prompt depend on each other. With
``--tie`` answers of nearly equal quality tie; the true strengths are then those that give the same
expected points. Coverage is the share of intervals that hold the true strength; it should be 95 %.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from llmstages.data import bradley_terry


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--players", type=int, default=8)
    parser.add_argument("--prompts", type=int, nargs="*", default=[30, 100, 300])
    parser.add_argument("--spread", type=float, default=2.0, help="of strengths, best to worst")
    parser.add_argument("--tie", type=float, nargs="*", default=[0.0, 0.5])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--draws", type=int, default=400)
    args = parser.parse_args()
    strengths = np.linspace(-args.spread / 2, args.spread / 2, args.players)
    print("prompts    tie  by prompt  by comparison")
    for prompts in args.prompts:
        for tie in args.tie:
            shares = coverage(strengths, prompts, tie, args.runs, args.draws)
            print(f"{prompts:7}  {tie:5}  {shares[0]:9.1%}  {shares[1]:13.1%}", flush=True)


def coverage(
    strengths: Any, prompts: int, tie: float, runs: int, draws: int
) -> tuple[float, float]:
    """Shares of intervals that hold the truth: bootstrapped over prompts, over comparisons."""
    truth = true_strengths(strengths, tie)
    held = np.zeros(2)
    for run in range(runs):
        points = simulate(strengths, prompts, tie, run)
        alone = comparisons_alone(points)
        for place, units in enumerate((points, alone)):
            drawn = bradley_terry.bootstrap(units, draws, run)
            low, high = bradley_terry.intervals(drawn, len(units))
            held[place] += np.mean((low <= truth) & (truth <= high))
    return float(held[0] / runs), float(held[1] / runs)


def simulate(strengths: Any, prompts: int, tie: float, seed: int) -> Any:
    """Points of each player against each other one, by prompt."""
    rng = np.random.default_rng([seed, prompts])
    quality = strengths + rng.gumbel(size=(prompts, len(strengths)))
    ahead = quality[:, :, None] - quality[:, None, :]
    points = (ahead > tie) + 0.5 * (np.abs(ahead) <= tie)
    players = np.arange(len(strengths))
    points[:, players, players] = 0
    return points


def true_strengths(strengths: Any, tie: float) -> Any:
    """The strengths of the expected points: those simulated, where nothing ties."""
    ahead = strengths[:, None] - strengths[None, :]
    wins = 1 / (1 + np.exp(tie - ahead))
    points = wins + 0.5 * (1 - wins - wins.T)
    np.fill_diagonal(points, 0)
    return bradley_terry.fit(points[None] * 1e6)[0]


def comparisons_alone(points: Any) -> Any:
    """The same comparisons as if each were at a prompt of its own."""
    prompts, players, _ = points.shape
    first, second = np.triu_indices(players, 1)
    alone = np.zeros((prompts, len(first), players, players))
    pairs = np.arange(len(first))
    alone[:, pairs, first, second] = points[:, first, second]
    alone[:, pairs, second, first] = points[:, second, first]
    return alone.reshape(-1, players, players)


if __name__ == "__main__":
    main()
