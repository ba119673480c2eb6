"""Line charts as inline SVG: sharp at any size, and colored by CSS classes of the page.

So a chart follows a dark theme and prints. Each one is small (360 by 210) and readable on a phone;
a grid of them replaces one large chart. Points carry a ``<title>`` for pointers and screen
readers. Series differ by dash as well as by color.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 34
MAX_POINTS = 160  # more cannot be told apart at this width
MAX_TOOLTIPS = 40  # points of a line that carry a title
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line. ``style`` is its color and dash, s0 to s7."""

    name: str
    points: Points
    style: str = "s0"


@dataclass(frozen=True)
class Frame:
    """What part of the plane a chart shows, and how it maps to pixels."""

    left: float
    right: float
    low: float
    high: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point. A chart whose points have the same x shows them in the middle."""
        across = 0.5
        if self.right > self.left:
            across = (x - self.left) / (self.right - self.left)
        down = (self.high - y) / (self.high - self.low)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            TOP + down * (HEIGHT - TOP - BOTTOM),
        )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers that span [low, high]."""
    # A flat line gets some room above and below.
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    smallest_step = (high - low) / count
    scale = 10.0 ** math.floor(math.log10(smallest_step))
    # The tolerances keep a step that fits exactly, whatever the rounding error.
    steps = [multiple * scale for multiple in (1, 2, 2.5, 5, 10)]
    step = next(step for step in steps if step >= smallest_step * 0.999)
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


def thin(points: Points, most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """About ``most`` of the points: of each stretch its lowest and its highest one.

    The first and the last one stay. A spike is what one looks for, so it must not be left out.
    """
    if len(points) <= most:
        return list(points)
    stretches = max(1, most // 2 - 1)
    kept = {0, len(points) - 1}
    for stretch in range(stretches):
        start = stretch * len(points) // stretches
        stop = (stretch + 1) * len(points) // stretches
        places = range(start, stop)
        kept.add(min(places, key=lambda place: points[place][1]))
        kept.add(max(places, key=lambda place: points[place][1]))
    return [points[place] for place in sorted(kept)]


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
    """A chart with its legend, or an empty string if there is no point to draw.

    Args:
        title: above the chart.
        series: the lines. They are broken at points that are not finite, which the caption counts.
        x: name of the horizontal axis.
        y: what the vertical axis shows, beside the title.
        unit: follows each value in tooltips.
        zero: whether the vertical axis begins at 0.
        limits: horizontal lines (value, label).
        at_x: position of a vertical line.
    """
    drawn = _drawable(series)
    notes = _left_out(series)
    if not drawn:
        return Markup('<p class="note">{}: {}</p>').format(title, notes) if notes else Markup("")
    xs: list[float] = []
    ys = [value for value, _ in limits]
    for line in drawn:
        for px, py in finite_points(line.points):
            xs.append(px)
            ys.append(py)
    if zero:
        ys.append(0.0)
    y_marks = ticks(min(ys), max(ys))
    frame = Frame(min(xs), max(xs), y_marks[0], y_marks[-1])

    parts = _axes(frame, y_marks, x)
    parts += [_horizontal_limit(frame, value, label) for value, label in limits]
    if at_x is not None and frame.left <= at_x <= frame.right:
        parts.append(_vertical_limit(frame, at_x))
    # The lines come last, so that they lie over the grid and the limits.
    parts += [_line(frame, line, x, unit) for line in drawn]

    caption = escape(title)
    if y:
        caption += Markup(f" <small>{escape(y)}</small>")
    if notes:
        caption += Markup(f' <small class="bad">{escape(notes)}</small>')
    return Markup(
        f'<figure class="chart"><figcaption>{caption}</figcaption>'
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}. {escape(_in_words(drawn, x))}">{"".join(parts)}</svg>'
        f"{_legend(drawn)}</figure>"
    )


def _drawable(series: Sequence[Series]) -> list[Series]:
    """The series with finite points, thinned between those that are not."""
    drawable = []
    for line in series:
        points: list[tuple[float, float]] = []
        for is_finite, stretch in groupby(line.points, key=_is_finite):
            neighbors = list(stretch)
            points += thin(neighbors) if is_finite else neighbors[:1]
        if any(map(_is_finite, points)):
            drawable.append(Series(line.name, points, line.style))
    return drawable


def _is_finite(point: tuple[float, float]) -> bool:
    return all(map(math.isfinite, point))


def finite_points(points: Points) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [point for point in points if _is_finite(point)]


def _left_out(series: Sequence[Series]) -> str:
    """How many values are not finite, by series; "" if all are."""
    counts = [(line.name, sum(not _is_finite(point) for point in line.points)) for line in series]
    parts = [f"{count} of {name}" for name, count in counts if count]
    return f"not a finite number: {', '.join(parts)}" if parts else ""


def _in_words(series: Sequence[Series], x: str) -> str:
    """The first and last value of each line, for screen readers."""
    sentences = []
    for line in series:
        points = finite_points(line.points)
        first, last = points[0], points[-1]
        sentences.append(
            f"{line.name}: {short(first[1])} at {x} {short(first[0])}, "
            f"{short(last[1])} at {short(last[0])}"
        )
    return "; ".join(sentences)


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    items = [
        f'<li class="{line.style}"><svg viewBox="0 0 22 8" aria-hidden="true">'
        f'<path d="M1 4H21"/></svg>{escape(line.name)}</li>'
        for line in series
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _axes(frame: Frame, y_marks: Sequence[float], x: str) -> list[str]:
    """Grid lines with their values, the values of the horizontal axis and its name."""
    parts = []
    for value in y_marks:
        _, py = frame.place(frame.left, value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{py + 3.5:.1f}" text-anchor="end">{short(value)}</text>'
        )
    x_marks = [frame.left]
    if frame.right > frame.left:
        x_marks = ticks(frame.left, frame.right)
    for value in x_marks:
        if not frame.left <= value <= frame.right:
            continue
        px, _ = frame.place(value, frame.low)
        parts.append(
            f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
            f"{short(value)}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x)}</text>'
    )
    return parts


def _horizontal_limit(frame: Frame, value: float, label: str) -> str:
    _, py = frame.place(frame.left, value)
    return (
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
        f'<text class="limit" x="{WIDTH - RIGHT}" y="{py - 4:.1f}" text-anchor="end">'
        f"{escape(label)}</text>"
    )


def _vertical_limit(frame: Frame, value: float) -> str:
    px, _ = frame.place(value, frame.low)
    return (
        f'<line class="limit" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
        f"<title>limit {short(value)}</title></line>"
    )


def _line(frame: Frame, line: Series, x: str, unit: str) -> str:
    """The path of a series and its points with tooltips."""
    path = ""
    for is_finite, stretch in groupby(line.points, key=_is_finite):
        if is_finite:
            pixels = [frame.place(*point) for point in stretch]
            path += "M" + " L".join(f"{px:.1f} {py:.1f}" for px, py in pixels)
    dots = []
    for point in thin(finite_points(line.points), MAX_TOOLTIPS):
        px, py = frame.place(*point)
        tip = f"{line.name}, {x} {short(point[0])}: {short(point[1])}{unit}"
        dots.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5"><title>{escape(tip)}</title></circle>'
        )
    single = " single" if len(line.points) == 1 else ""
    return f'<g class="line {line.style}{single}"><path d="{path}"/>{"".join(dots)}</g>'
