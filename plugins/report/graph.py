"""The lineage of a run as inline SVG: steps in columns by depth, lines to what they took."""

from __future__ import annotations

from collections import defaultdict

from markupsafe import Markup, escape

from llmstages.plugins.report.steps import Chain, FinishedStep

NODE_WIDTH, NODE_HEIGHT = 104, 30
COLUMN_DISTANCE, ROW_DISTANCE = 150, 44
MARGIN = 10
MAX_LABEL = 15  # characters
SORTING_PASSES = 3
Position = tuple[float, float]  # of the upper left corner of a node


def columns(chain: Chain) -> list[list[FinishedStep]]:
    """Steps by the length of the longest path to them.

    Within a column they are in the order of what they took, so that fewer lines cross.
    """
    depth: dict[str, int] = {}
    by_depth: dict[int, list[FinishedStep]] = defaultdict(list)
    for step in chain.steps:
        before = [depth[parent.name] for parent in chain.parents(step) if parent.name in depth]
        depth[step.name] = 1 + max(before, default=-1)
        by_depth[depth[step.name]].append(step)
    ordered = [by_depth[level] for level in sorted(by_depth)]

    # Each pass sorts a column by the mean height of what its steps took (the barycenter method).
    for _ in range(SORTING_PASSES):
        height: dict[str, float] = {}
        for column in ordered:
            height |= _heights(column)
        for column in ordered[1:]:
            _sort_by_parents(column, height, chain)
            height |= _heights(column)
    return ordered


def _sort_by_parents(column: list[FinishedStep], height: dict[str, float], chain: Chain) -> None:
    """Sort a column in place by the mean height of what each step took."""

    def mean_height(step: FinishedStep) -> float:
        heights = [height[parent.name] for parent in chain.parents(step)]
        return sum(heights) / len(heights) if heights else 0.5

    column.sort(key=mean_height)


def _heights(column: list[FinishedStep]) -> dict[str, float]:
    """Step -> its place in the column, from 0 at the top to 1."""
    return {step.name: (i + 0.5) / len(column) for i, step in enumerate(column)}


def lineage(chain: Chain) -> Markup:
    """The graph. Each node links to the configuration of its step on the page."""
    if not chain.steps:
        return Markup("")
    ordered = columns(chain)
    tallest = max(map(len, ordered))
    width = MARGIN * 2 + COLUMN_DISTANCE * (len(ordered) - 1) + NODE_WIDTH
    height = MARGIN * 2 + ROW_DISTANCE * (tallest - 1) + NODE_HEIGHT
    position = _positions(ordered, tallest)

    # The edges come first, so that the nodes lie over them.
    parts = []
    for step in chain.steps:
        for parent in chain.parents(step):
            parts.append(_edge(position[parent.name], position[step.name], parent, step))
    parts += [_node(position[step.name], step) for step in chain.steps]
    return Markup(
        f'<svg class="graph" viewBox="0 0 {width} {height}" '
        f'style="min-width:{width * 0.78:.0f}px" role="img" '
        f'aria-label="Lineage of {len(chain.steps)} steps">{"".join(parts)}</svg>'
    )


def _positions(ordered: list[list[FinishedStep]], tallest: int) -> dict[str, Position]:
    """Step -> position; columns are centered."""
    position = {}
    for i, column in enumerate(ordered):
        top = MARGIN + (tallest - len(column)) * ROW_DISTANCE / 2
        for j, step in enumerate(column):
            position[step.name] = (MARGIN + i * COLUMN_DISTANCE, top + j * ROW_DISTANCE)
    return position


def _node(position: Position, step: FinishedStep) -> str:
    x, y = position
    label = step.name
    if len(label) > MAX_LABEL:
        label = label[: MAX_LABEL - 1] + "…"
    return (
        f'<a href="#step-{escape(step.name)}"><g class="node k-{escape(step.kind)}">'
        f'<rect x="{x}" y="{y}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="6"/>'
        f'<text x="{x + NODE_WIDTH / 2}" y="{y + NODE_HEIGHT / 2 + 4}" text-anchor="middle">'
        f"{escape(label)}</text>"
        f"<title>{escape(step.name)}: {escape(step.kind)}, "
        f"made by {escape(step.stage or 'hand')}</title></g></a>"
    )


def _edge(start: Position, end: Position, parent: FinishedStep, step: FinishedStep) -> str:
    """A curve from the right side of one node to the left side of another."""
    x1, y1 = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT / 2
    x2, y2 = end[0], end[1] + NODE_HEIGHT / 2
    bend = max(24.0, (x2 - x1) / 2)
    return (
        f'<path class="edge k-{escape(parent.kind)}" '
        f'd="M{x1} {y1} C{x1 + bend:.0f} {y1} {x2 - bend:.0f} {y2} {x2} {y2}">'
        f"<title>{escape(step.name)} takes {escape(parent.name)}</title></path>"
    )
