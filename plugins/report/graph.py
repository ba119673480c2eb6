"""The lineage of a run as inline SVG: steps in columns by how much had to come before them, lines to what they took."""

from __future__ import annotations

from collections import defaultdict

from markupsafe import Markup, escape

from llmstages.plugins.report.steps import Chain, View

WIDE, TALL, ACROSS, DOWN, EDGE = 104, 30, 150, 44, 10


def columns(chain: Chain) -> list[list[View]]:
    """Steps by depth; within a column in the order of what they took, so that lines cross less."""
    depth: dict[str, int] = {}
    for step in chain.steps:
        depth[step.name] = 1 + max(
            (depth[p.name] for p in chain.parents(step) if p.name in depth), default=-1
        )
    found: dict[int, list[View]] = defaultdict(list)
    for step in chain.steps:
        found[depth[step.name]].append(step)
    out = [found[d] for d in sorted(found)]
    for _ in range(3):
        rows = {
            step.name: (i + 0.5) / len(column) for column in out for i, step in enumerate(column)
        }
        for column in out[1:]:
            column.sort(key=lambda s: _mean([rows[p.name] for p in chain.parents(s)]))
            rows |= {step.name: (i + 0.5) / len(column) for i, step in enumerate(column)}
    return out


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.5


def lineage(chain: Chain) -> Markup:
    """The graph. Each node links to the step's configuration below it."""
    if not chain.steps:
        return Markup("")
    placed = columns(chain)
    most = max(map(len, placed))
    width, height = (
        EDGE * 2 + ACROSS * (len(placed) - 1) + WIDE,
        EDGE * 2 + DOWN * (most - 1) + TALL,
    )
    where = {}
    for i, column in enumerate(placed):
        top = EDGE + (most - len(column)) * DOWN / 2
        for j, step in enumerate(column):
            where[step.name] = (EDGE + i * ACROSS, top + j * DOWN)
    parts = []
    for step in chain.steps:
        for parent in chain.parents(step):
            if parent.name in where:
                parts.append(_edge(where[parent.name], where[step.name], parent, step))
    for step in chain.steps:
        x, y = where[step.name]
        label = step.name if len(step.name) <= 15 else step.name[:14] + "…"
        parts.append(
            f'<a href="#step-{escape(step.name)}"><g class="node k-{escape(step.kind)}"><rect x="{x}" y="{y}" width="{WIDE}" height="{TALL}" rx="6"/>'
            f'<text x="{x + WIDE / 2}" y="{y + TALL / 2 + 4}" text-anchor="middle">{escape(label)}</text>'
            f"<title>{escape(step.name)}: {escape(step.kind)}, made by {escape(step.stage or 'hand')}</title></g></a>"
        )
    return Markup(
        f'<svg class="graph" viewBox="0 0 {width} {height}" style="min-width:{width * 0.78:.0f}px" role="img" '
        f'aria-label="Lineage of {len(chain.steps)} steps">{"".join(parts)}</svg>'
    )


def _edge(a: tuple[float, float], b: tuple[float, float], parent: View, step: View) -> str:
    x1, y1, x2, y2 = a[0] + WIDE, a[1] + TALL / 2, b[0], b[1] + TALL / 2
    bend = max(24.0, (x2 - x1) / 2)
    return (
        f'<path class="edge k-{escape(parent.kind)}" d="M{x1} {y1} C{x1 + bend:.0f} {y1} {x2 - bend:.0f} {y2} {x2} {y2}">'
        f"<title>{escape(step.name)} takes {escape(parent.name)}</title></path>"
    )
