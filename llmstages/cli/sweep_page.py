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
# Of Student's distribution: 97.5 % quantiles for 1 to 20 degrees of freedom; with more, the last.
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
Group = tuple[str, Sequence[SweptRun]]  # what its runs have in common, and the runs


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
        groups=len(groups_of(runs)),
        claims=claim_rows(runs),
        metrics=metric_rows(runs),
        charts=charts(runs),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=BOTTOM,
    )
    file.write_text(text, encoding="utf-8")


def groups_of(runs: Sequence[SweptRun]) -> list[Group]:
    """The runs that differ in their seeds alone, together; others each for itself."""
    groups: dict[str, list[SweptRun]] = {}
    for run in runs:
        groups.setdefault(comparison.without_seed(run) or run.label, []).append(run)
    return list(groups.items())


def claim_rows(runs: Sequence[SweptRun]) -> list[dict[str, Any]]:
    """Each claim for each group of runs: its values, their mean, and how often it was met."""
    names = dict.fromkeys(claim["name"] for run in runs for claim in run.claims)
    return [
        _claim_row(name, label, members, runs)
        for name in names
        for label, members in groups_of(runs)
    ]


def _claim_row(
    name: str, label: str, members: Sequence[SweptRun], runs: Sequence[SweptRun]
) -> dict[str, Any]:
    claims = [_claim_of(run, name) if run in members else None for run in runs]
    known = [claim for claim in claims if claim]
    measured = [claim for claim in known if comparison.is_number(claim["value"])]
    met = sum(bool(claim["met"]) for claim in measured)
    number = len(measured)
    return {
        "name": name,
        "group": label,
        "target": known[0]["target"] if known else "",
        "values": [_value_of(claim) for claim in claims],
        "summary": summary([float(claim["value"]) for claim in measured]),
        "met": met,
        "n": number,
        "interval": "{:.0%} to {:.0%}".format(*wilson(met, number)) if number else "not measured",
    }


def _claim_of(run: SweptRun, name: str) -> Mapping[str, Any] | None:
    return next((claim for claim in run.claims if claim["name"] == name), None)


def _value_of(claim: Mapping[str, Any] | None) -> dict[str, Any]:
    """A claim of one run: its value and interval as text, and whether it was met."""
    if claim is None or not comparison.is_number(claim["value"]):
        return {"text": "–", "interval": "", "met": None}
    interval = claim.get("interval")
    ends = " to ".join(format_number(end) for end in interval) if interval else ""
    return {"text": format_number(claim["value"]), "interval": ends, "met": bool(claim["met"])}


def metric_rows(runs: Sequence[SweptRun]) -> list[dict[str, Any]]:
    """The metrics by which runs are judged for each group of runs, with mean and spread."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows = []
    for name in filter(comparison.PRIMARY.search, names):
        for label, members in groups_of(runs):
            values = [run.metrics.get(name) if run in members else None for run in runs]
            numbers = [
                value for value in values if value is not None and comparison.is_number(value)
            ]
            texts = ["–" if value is None else format_number(value) for value in values]
            if numbers:
                rows.append(
                    {"name": name, "group": label, "values": texts, "summary": summary(numbers)}
                )
    return rows


def summary(values: Sequence[float]) -> dict[str, str]:
    """Mean with its 95 % interval (Student's t), standard deviation, smallest and largest value."""
    if not values:
        return dict.fromkeys(("mean", "range", "deviation", "interval"), "")
    mean = statistics.fmean(values)
    facts = {
        "mean": format_number(mean),
        "range": f"{format_number(min(values))} to {format_number(max(values))}",
        "deviation": "",
        "interval": "",
    }
    if len(values) > 1:
        deviation = statistics.stdev(values)
        quantile = STUDENT[min(len(values) - 1, len(STUDENT)) - 1]
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
    points = [
        (float(row["step"]), float(row[name]))
        for row in rows
        if comparison.is_number(row.get(name)) and comparison.is_number(row.get("step"))
    ]
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
