"""The profile of evaluate.jagged as one chart: a row for each task, a mark for each model.

A mark is the share of right answers with its 95 % interval; marks of models with tools are squares.
The short upright line is what a constant answer earns: a mark whose interval holds it shows no
ability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from llmstages.plugins.report.scores import WITH_TOOLS, in_recipe_order
from llmstages.plugins.report.steps import Chain

WIDTH = 640
LEFT, RIGHT, TOP, BOTTOM = 150, 16, 6, 34
MARK_HEIGHT = 13  # of the row of one model
GAP = 12  # between two tasks
ABOUT = "right answers in percent, all sizes together"
STYLES = 8  # colors of the page
Profile = Mapping[str, Mapping[str, Mapping[str, float]]]  # task -> model -> right, low, high, ...


def profiles(chain: Chain) -> list[Markup]:
    """A chart for each evaluation that has a profile."""
    charts = []
    for step in chain.of_kind("scores"):
        tasks: Profile = step.json("profile.json", {})
        if tasks:
            models = in_recipe_order(set().union(*tasks.values()), chain)
            charts.append(chart(step.name, tasks, models))
    return charts


def chart(title: str, tasks: Profile, models: Sequence[str], about: str = ABOUT) -> Markup:
    """The chart with its legend.

    Args:
        title: above the chart.
        tasks: the shares of each task and model.
        models: in the order of their marks.
        about: behind the title, what the marks are.
    """
    row_heights = [MARK_HEIGHT * len(by_model) + GAP for by_model in tasks.values()]
    height = TOP + sum(row_heights) + BOTTOM
    parts = _axis(height)
    top = TOP
    for row_height, (task, by_model) in zip(row_heights, tasks.items(), strict=True):
        middle = top + row_height / 2
        parts.append(
            f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">'
            f"{escape(task.replace('_', ' '))}</text>"
        )
        parts.append(_constant(by_model, top, row_height))
        present = [(place, model) for place, model in enumerate(models) if model in by_model]
        for line, (place, model) in enumerate(present):
            y = top + GAP / 2 + MARK_HEIGHT * (line + 0.5)
            parts.append(_mark(task, model, by_model[model], y, place))
        top += row_height
    label = f"{title}: right answers. {_in_words(tasks, models)}"
    return Markup(
        f'<figure class="profile"><figcaption>{escape(title)} <small>{escape(about)}, '
        "with 95 % intervals</small></figcaption>"
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>{_legend(models)}</figure>'
    )


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _axis(height: float) -> list[str]:
    """Grid lines at every fourth, with percent below."""
    parts = []
    bottom = height - BOTTOM
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _x(share)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>'
            f'<text x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{share:.0%}</text>'
        )
    return parts


def _constant(by_model: Mapping[str, Mapping[str, float]], top: float, height: float) -> str:
    """The share of a constant answer, which is the same for all models."""
    share = max(values["constant"] for values in by_model.values())
    x = _x(share)
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{top + 2:.1f}" '
        f'y2="{top + height - 2:.1f}"><title>a constant answer: {share:.0%}</title></line>'
    )


def _mark(task: str, model: str, values: Mapping[str, float], y: float, place: int) -> str:
    """The interval of a model as a line, and its share as a circle, or a square with tools."""
    x, low, high = _x(values["right"]), _x(values["low"]), _x(values["high"])
    tip = (
        f"{model}, {task.replace('_', ' ')}: {values['right']:.0%} right "
        f"({values['low']:.0%} to {values['high']:.0%}, n={values['n']:.0f})"
    )
    shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if model.endswith(WITH_TOOLS):
        shape = f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return (
        f'<g class="mark s{place % STYLES}"><title>{escape(tip)}</title>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>{shape}</g>'
    )


def _in_words(tasks: Profile, models: Sequence[str]) -> str:
    """All shares, for screen readers."""
    sentences = []
    for task, by_model in tasks.items():
        shares = [f"{name} {by_model[name]['right']:.0%}" for name in models if name in by_model]
        sentences.append(f"{task.replace('_', ' ')}: {', '.join(shares)}")
    return "; ".join(sentences)


def _legend(models: Sequence[str]) -> str:
    items: list[Any] = []
    for place, model in enumerate(models):
        shape = '<circle cx="11" cy="4" r="4"/>'
        if model.endswith(WITH_TOOLS):
            shape = '<rect x="7" y="0" width="8" height="8"/>'
        items.append(
            f'<li class="mark s{place % STYLES}"><svg viewBox="0 0 22 8" aria-hidden="true">'
            f"{shape}</svg>{escape(model)}</li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'
