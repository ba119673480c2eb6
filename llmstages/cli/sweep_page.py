"""The runs of a sweep as one page: claims over seeds, metrics with their spread, curves together.

It stands alone like the report: no script, nothing fetched, text escaped by the template.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.cli import comparison
from llmstages.cli.comparison import SweptRun
from llmstages.core.console import format_number, format_seconds
from llmstages.data import tables
from llmstages.data.intervals import wilson

TEMPLATE = Path(__file__).parent / "sweep.html.j2"
CURVES = ("loss", "eval_loss", "reward", "entropy", "kl", "completions/mean_length")
WIDTH, HEIGHT = 360, 150  # of a chart, in pixels
LEFT, BOTTOM = 44, 18  # of its margins
MOST_POINTS = 200
# Of Student's distribution: 97.5 % quantiles for 1 to 9 degrees of freedom; from there on 2.2.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def write(runs: Sequence[SweptRun], file: Path, title: str) -> None:
    """Write the page.

    Args:
        runs: of the sweep.
        file: to write.
        title: the heading.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(TEMPLATE.name).render(
        title=title,
        runs=[
            {"label": run.label, "state": run.state, "time": format_seconds(run.seconds)}
            for run in runs
        ],
        claims=claim_rows(runs),
        metrics=metric_rows(runs),
        charts=charts(runs),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=BOTTOM,
    )
    file.write_text(text, encoding="utf-8")


def claim_rows(runs: Sequence[SweptRun]) -> list[dict[str, Any]]:
    """Each claim with its values by run, their mean and its interval, and how often it was met."""
    by_name: dict[str, list[Mapping[str, Any] | None]] = {}
    for place, run in enumerate(runs):
        for claim in run.claims:
            by_name.setdefault(claim["name"], [None] * len(runs))[place] = claim
    rows = []
    for name, claims in by_name.items():
        measured = [claim for claim in claims if claim and claim["value"] is not None]
        if not measured:
            continue
        met = sum(bool(claim["met"]) for claim in measured)
        rows.append(
            {
                "name": name,
                "target": measured[0]["target"],
                "values": [_value_of(claim) for claim in claims],
                "summary": summary([float(claim["value"]) for claim in measured]),
                "met": met,
                "n": len(measured),
                "interval": "{:.0%} to {:.0%}".format(*wilson(met, len(measured))),
            }
        )
    return rows


def _value_of(claim: Mapping[str, Any] | None) -> dict[str, Any]:
    """A claim of one run: its value and interval as text, and whether it was met."""
    if claim is None or claim["value"] is None:
        return {"text": "–", "interval": "", "met": None}
    interval = claim.get("interval")
    ends = " to ".join(format_number(end) for end in interval) if interval else ""
    return {"text": format_number(claim["value"]), "interval": ends, "met": bool(claim["met"])}


def metric_rows(runs: Sequence[SweptRun]) -> list[dict[str, Any]]:
    """The metrics by which runs are judged, by run, with mean and spread."""
    metrics = [run.metrics for run in runs]
    names = list(dict.fromkeys(name for values in metrics for name in values))
    judged = [name for name in names if comparison.PRIMARY.search(name)]
    rows = []
    for name in judged:
        values = [values.get(name) for values in metrics]
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        if len(numbers) > 1:
            texts = ["–" if value is None else format_number(value) for value in values]
            rows.append({"name": name, "values": texts, "summary": summary(numbers)})
    return rows


def summary(values: Sequence[float]) -> dict[str, str]:
    """Mean with its 95 % interval (Student's t), standard deviation, smallest and largest value."""
    mean = statistics.fmean(values)
    facts = {
        "mean": format_number(mean),
        "range": f"{format_number(min(values))} to {format_number(max(values))}",
        "deviation": "",
        "interval": "",
    }
    if len(values) > 1:
        deviation = statistics.stdev(values)
        quantile = STUDENT[len(values) - 2] if len(values) - 2 < len(STUDENT) else 2.2
        half = quantile * deviation / math.sqrt(len(values))
        facts["deviation"] = format_number(deviation, 2)
        facts["interval"] = f"{format_number(mean - half)} to {format_number(mean + half)}"
    return facts


def charts(runs: Sequence[SweptRun]) -> list[dict[str, Any]]:
    """The curves of each training step, one line a run."""
    made = []
    steps = dict.fromkeys(step for run in runs for step in run.outcome.results)
    for step in steps:
        for name in CURVES:
            series = [_series(run, step, name) for run in runs]
            if sum(len(points) > 1 for points in series) > 1:
                made.append({"title": f"{step}: {name}", **_drawn(series)})
    return made


def _series(run: SweptRun, step: str, name: str) -> list[tuple[float, float]]:
    result = run.outcome.results.get(step)
    if result is None or not result.path:
        return []
    rows = tables.read_lines(Path(result.path) / "log.jsonl")
    points = [(float(row["step"]), float(row[name])) for row in rows if name in row]
    stride = -(-len(points) // MOST_POINTS) or 1
    return points[::stride]


def _drawn(series: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Lines as points of an SVG, with the ends of both axes."""
    xs = [x for points in series for x, _ in points]
    ys = [y for points in series for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    lines = []
    for points in series:
        placed = [
            f"{LEFT + (WIDTH - LEFT - 6) * (x - left) / (right - left or 1):.1f},"
            f"{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 8) * (y - low) / (high - low or 1):.1f}"
            for x, y in points
        ]
        lines.append(" ".join(placed))
    return {
        "lines": lines,
        "low": format_number(low),
        "high": format_number(high),
        "last": format_number(right),
    }
