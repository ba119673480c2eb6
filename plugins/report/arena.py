"""The rankings of evaluate.arena: a chart of ratings with intervals, and points by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from llmstages.plugins.report.plots import ticks
from llmstages.plugins.report.steps import Chain, FinishedStep

WIDTH = 640
LEFT, RIGHT, TOP, BOTTOM = 150, 16, 6, 34
ROW_HEIGHT = 20
GOLD_SHIFT = 7  # pixels between the marks of the judge and, below it, of gold
JUDGE_NAMES = {
    "grader": "the grader",
    "reward": "the reward",
    "reward_model": "the reward model",
    "model": "a model",
    "endpoint": "a model behind an address",
}
Ranking = Sequence[Mapping[str, Any]]  # rows of arena.json, the strongest model first


def arenas(chain: Chain) -> list[dict[str, Any]]:
    """What the page shows of each arena."""
    shown = []
    for step in chain.of_kind("scores"):
        found = step.json("arena.json", {})
        if found:
            shown.append(_arena(step, found))
    return shown


def _arena(step: FinishedStep, found: Mapping[str, Any]) -> dict[str, Any]:
    """The chart, the rows of the ranking, the table of points by pair, and the sentences below."""
    ranking: Ranking = found["ranking"]
    gold = found.get("gold") or {}
    known = found.get("reference") or {}
    gold_ranks = {row["model"]: row["rank"] for row in gold.get("ranking", [])}
    rankings = {JUDGE_NAMES[found["judge"]]: ranking}
    if gold:
        rankings[f"{JUDGE_NAMES[gold['judge']]} (gold)"] = gold["ranking"]
    names = [row["model"] for row in ranking]
    return {
        "step": step.name,
        "judge": JUDGE_NAMES[found["judge"]],
        "gold": JUDGE_NAMES[gold["judge"]] if gold else "",
        "known": known,
        "chart": chart(step.name, rankings),
        "rows": [
            {
                **row,
                "gold_rank": gold_ranks.get(row["model"]),
                "known": known.get("values", {}).get(row["model"]),
            }
            for row in ranking
        ],
        "names": names,
        "pairs": [_points_against(found["wins"].get(name, {}), names) for name in names],
        "position": found["position"],
        "length": found["length"],
        "agreement": gold.get("agreement", {}),
    }


def _points_against(
    opponents: Mapping[str, Mapping[str, int]], names: Sequence[str]
) -> list[dict[str, Any] | None]:
    """The share of points against each model, ties as halves; None where they did not meet."""
    cells: list[dict[str, Any] | None] = []
    for name in names:
        counts = opponents.get(name)
        if not counts:
            cells.append(None)
            continue
        number = sum(counts.values())
        cells.append({**counts, "points": (counts["won"] + counts["tied"] / 2) / number})
    return cells


def chart(title: str, rankings: Mapping[str, Ranking]) -> Markup:
    """A row for each model, in the order of the first ranking, and a mark for each judge.

    Args:
        title: above the chart.
        rankings: judge -> its ranking.
    """
    first = next(iter(rankings.values()))
    rows = [row for ranking in rankings.values() for row in ranking]
    marks = ticks(min(row["rating_low"] for row in rows), max(row["rating_high"] for row in rows))
    height = TOP + ROW_HEIGHT * len(first) + BOTTOM
    parts = _axis(marks, height)
    places = {row["model"]: place for place, row in enumerate(first)}
    for model, place in places.items():
        y = TOP + ROW_HEIGHT * (place + 0.5)
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(model)}</text>'
        )
    for number, (judge, ranking) in enumerate(rankings.items()):
        for row in ranking:
            middle = TOP + ROW_HEIGHT * (places[row["model"]] + 0.5)
            y = middle + GOLD_SHIFT * (number - (len(rankings) - 1) / 2)
            parts.append(_mark(judge, row, y, number, marks))
    label = f"{title}: ratings. {_in_words(rankings)}"
    return Markup(
        f'<figure class="profile"><figcaption>{escape(title)} <small>rating, with 95 % '
        "intervals</small></figcaption>"
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>{_legend(list(rankings))}</figure>'
    )


def _x(rating: float, marks: Sequence[float]) -> float:
    share = (rating - marks[0]) / (marks[-1] - marks[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _axis(marks: Sequence[float], height: float) -> list[str]:
    """Grid lines at round ratings, with their values below."""
    bottom = height - BOTTOM
    parts = []
    for rating in marks:
        x = _x(rating, marks)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>'
            f'<text x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{rating:.0f}</text>'
        )
    return parts


def _mark(judge: str, row: Mapping[str, Any], y: float, number: int, marks: Sequence[float]) -> str:
    """The interval of a model as a line; its rating as a circle, or a square for gold."""
    x, low, high = (_x(row[name], marks) for name in ("rating", "rating_low", "rating_high"))
    tip = (
        f"{row['model']} by {judge}: {row['rating']:.0f} "
        f"({row['rating_low']:.0f} to {row['rating_high']:.0f}), place {row['rank']}"
    )
    shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if number:
        shape = f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
    return (
        f'<g class="mark s{number}"><title>{escape(tip)}</title>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>{shape}</g>'
    )


def _in_words(rankings: Mapping[str, Ranking]) -> str:
    """All ratings, for screen readers."""
    sentences = []
    for judge, ranking in rankings.items():
        ratings = [f"{row['model']} {row['rating']:.0f}" for row in ranking]
        sentences.append(f"By {judge}: {', '.join(ratings)}")
    return "; ".join(sentences)


def _legend(judges: Sequence[str]) -> str:
    items = []
    for number, judge in enumerate(judges):
        shape = (
            '<rect x="8" y="1" width="6" height="6"/>'
            if number
            else '<circle cx="11" cy="4" r="4"/>'
        )
        items.append(
            f'<li class="mark s{number}"><svg viewBox="0 0 22 8" aria-hidden="true">{shape}</svg>'
            f"by {escape(judge)}</li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'
