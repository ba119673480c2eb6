"""Line charts as inline SVG: crisp at any size, coloured by CSS classes, so that they follow a dark theme and print.

Each chart is small (360 by 210) and readable on a phone; a grid of them replaces one large chart. Points carry a
``<title>`` for pointers and screen readers. Series differ by dash as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 34
MOST_POINTS = 160  # more cannot be told apart at this width
Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line. style: which colour and dash, s0 to s7."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "s0"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that span [low, high]."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis or a tooltip."""
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def thin(
    points: Sequence[tuple[float, float]], most: int = MOST_POINTS
) -> list[tuple[float, float]]:
    """At most ``most`` of the points, evenly, the last one kept."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def lines(
    title: str,
    series: Sequence[Series],
    *,
    x: str = "update",
    y: str = "",
    unit: str = "",
    zero: bool = False,
    limits: Sequence[tuple[float, str]] = (),
    at_x: float | None = None,
) -> Markup:
    """A chart with its legend, or nothing when there is nothing to draw.

    limits: horizontal lines (value, label). at_x: a vertical line there. zero: the axis begins at 0. unit: shown in tooltips.
    """
    series = [
        Series(
            s.name,
            thin([p for p in s.points if math.isfinite(p[0]) and math.isfinite(p[1])]),
            s.style,
        )
        for s in series
    ]
    series = [s for s in series if s.points]
    if not series:
        return Markup("")
    xs = [p[0] for s in series for p in s.points]
    ys = (
        [p[1] for s in series for p in s.points]
        + [value for value, _ in limits]
        + ([0.0] if zero else [])
    )
    marks = ticks(min(ys), max(ys))
    across = ticks(min(xs), max(xs)) if max(xs) > min(xs) else [xs[0]]
    low, high, left, right = marks[0], marks[-1], min(xs), max(xs)

    def at(px: float, py: float) -> tuple[float, float]:
        wide = (px - left) / (right - left) if right > left else 0.5
        return LEFT + wide * (WIDTH - LEFT - RIGHT), TOP + (high - py) / (high - low) * (
            HEIGHT - TOP - BOTTOM
        )

    parts = [*_axes(at, marks, [a for a in across if left <= a <= right], left, low, x)]
    for value, label in limits:
        _, py = at(left, value)
        parts.append(
            f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
            f'<text class="limit" x="{WIDTH - RIGHT}" y="{py - 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
    if at_x is not None and left <= at_x <= right:
        px, _ = at(at_x, low)
        parts.append(
            f'<line class="limit" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"><title>limit {short(at_x)}</title></line>'
        )
    for s in series:
        parts.append(_line(s, at, x, unit))
    told = "; ".join(
        f"{s.name}: {short(s.points[0][1])} at {x} {short(s.points[0][0])}, {short(s.points[-1][1])} at {short(s.points[-1][0])}"
        for s in series
    )
    legend = "".join(
        f'<li class="{s.style}"><svg viewBox="0 0 22 8" aria-hidden="true"><path d="M1 4H21"/></svg>{escape(s.name)}</li>'
        for s in series
    )
    head = f"<figcaption>{escape(title)}{f' <small>{escape(y)}</small>' if y else ''}</figcaption>"
    return Markup(
        f'<figure class="chart">{head}<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}. {escape(told)}">{"".join(parts)}</svg>'
        + (f'<ul class="legend">{legend}</ul>' if len(series) > 1 else "")
        + "</figure>"
    )


def _axes(
    at: Place, marks: Sequence[float], across: Sequence[float], left: float, low: float, x: str
) -> list[str]:
    out = []
    for value in marks:
        _, py = at(left, value)
        out.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{py + 3.5:.1f}" text-anchor="end">{short(value)}</text>'
        )
    for value in across:
        px, _ = at(value, low)
        out.append(
            f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{short(value)}</text>'
        )
    out.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x)}</text>'
    )
    return out


def _line(s: Series, at: Place, x: str, unit: str) -> str:
    path = " ".join(
        f"{'M' if i == 0 else 'L'}{px:.1f} {py:.1f}"
        for i, (px, py) in enumerate(at(*p) for p in s.points)
    )
    dots = []
    for point in thin(s.points, 40):
        px, py = at(*point)
        tip = f"{s.name}, {x} {short(point[0])}: {short(point[1])}{unit}"
        dots.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5"><title>{escape(tip)}</title></circle>'
        )
    single = " single" if len(s.points) == 1 else ""
    return f'<g class="line {s.style}{single}"><path d="{path}"/>{"".join(dots)}</g>'
