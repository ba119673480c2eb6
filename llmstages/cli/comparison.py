"""The runs of a sweep side by side: a table, spread over seeds, claims met, and files to keep.

The table shows the metrics by which runs are judged (losses, shares of right answers, rewards)
before counts; the files hold all of them.
"""

from __future__ import annotations

import csv
import dataclasses as dc
import json
import math
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.console import Console, format_number, format_seconds
from llmstages.core.exit_codes import INTERRUPTED, REQUEUE
from llmstages.core.secrets import mask
from llmstages.data.intervals import wilson
from llmstages.pipeline.overrides import key_of
from llmstages.pipeline.runner import Outcome

SHOWN_METRICS = 6  # columns of the table
# Metrics by which runs are judged, by the end of their names
PRIMARY = re.compile(
    r"(^|[./_])(loss|right|accuracy|bits_per_byte|perplexity|precision|recall|margin|score"
    r"|reward|reward_last)$"
)
# Facts about the data, and what depends on the machine: they say nothing of which run is better
SECONDARY = re.compile(r"unigram_|padding|seconds|per_second|(^|[./_])rows$|_first$")


@dc.dataclass(frozen=True)
class SweptRun:
    """One run of a sweep.

    Attributes:
        varied: the overrides in which it differs from the others.
        outcome: what came of it.
        claims: those of its report, as in claims.json.
    """

    varied: Sequence[str]
    outcome: Outcome
    claims: Sequence[Mapping[str, Any]] = ()

    @property
    def label(self) -> str:
        return " ".join(self.varied) or "as given"

    @property
    def state(self) -> str:
        if not self.outcome.error:
            return "ok"
        return "stopped" if self.outcome.code in (INTERRUPTED, REQUEUE) else "failed"

    @property
    def seconds(self) -> float:
        return sum(result.seconds for result in self.outcome.results.values())

    @property
    def metrics(self) -> dict[str, Any]:
        """STEP.METRIC -> value."""
        metrics = {}
        for step, result in self.outcome.results.items():
            for name, value in result.metrics.items():
                metrics[f"{step}.{name}"] = value
        return metrics


@dc.dataclass(frozen=True)
class Spread:
    """A metric over several seeds.

    Attributes:
        deviation: the standard deviation of a sample (divided by n - 1).
        n: how many runs have the metric.
    """

    mean: float
    deviation: float
    n: int

    def __str__(self) -> str:
        return f"{format_number(self.mean)} ± {format_number(self.deviation, digits=2)}"


@dc.dataclass(frozen=True)
class ClaimOverRuns:
    """A claim in several runs.

    Attributes:
        met: in how many runs it was met.
        n: how many runs measured it.
        lowest, highest: of its values.
        target: what was to hold.
    """

    met: int
    n: int
    lowest: float
    highest: float
    target: str


def print_comparison(runs: Sequence[SweptRun], console: Console) -> None:
    """Print one run per row, and one row for each group of runs that differ in seeds alone."""
    metrics = [run.metrics for run in runs]
    names = shown_metrics(metrics)
    rows = []
    for run, values in zip(runs, metrics, strict=True):
        cells = [format_number(values.get(name, "")) for name in names]
        rows.append((run.label, run.state, format_seconds(run.seconds), *cells))
    console.table("comparison", ("run", "state", "time", *names), rows)
    seed_rows = []
    for label, spreads in over_seeds(runs).items():
        counts = {spread.n for spread in spreads.values()}
        n = "-".join(str(count) for count in sorted({min(counts), max(counts)}))
        seed_rows.append((label, n, *[str(spreads.get(name, "")) for name in names]))
    console.table("mean ± standard deviation over seeds", ("runs", "n", *names), seed_rows)
    claim_rows = []
    for name, claim in claims_over_runs(runs).items():
        low, high = wilson(claim.met, claim.n)
        share = f"{low:.0%} to {high:.0%}"
        values = f"{format_number(claim.lowest)} to {format_number(claim.highest)}"
        claim_rows.append((name, f"{claim.met} of {claim.n}", share, values, claim.target))
    header = ("claim", "met", "95 % interval", "values", "target")
    console.table("claims over all runs", header, claim_rows)


def claims_over_runs(runs: Sequence[SweptRun]) -> dict[str, ClaimOverRuns]:
    """Name of a claim -> how often it was met, for claims that at least two runs measured."""
    measured: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        for claim in run.claims:
            if is_number(claim["value"]):
                measured.setdefault(claim["name"], []).append(claim)
    summaries = {}
    for name, claims in measured.items():
        if len(claims) > 1:
            values = [claim["value"] for claim in claims]
            met = sum(claim["met"] for claim in claims)
            target = claims[0]["target"]
            summaries[name] = ClaimOverRuns(met, len(claims), min(values), max(values), target)
    return summaries


def shown_metrics(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics to show: of those that differ, those that runs are judged by come first.

    Of equal ones the last count, since later steps tell more; they are in the order of the steps.
    """
    names = _differing(metrics)
    primary = [name for name in names if PRIMARY.search(name) and not SECONDARY.search(name)]
    others = [name for name in names if name not in primary and not SECONDARY.search(name)]
    chosen = primary[-SHOWN_METRICS:]
    free = SHOWN_METRICS - len(chosen)
    if free:
        chosen += others[-free:]
    return [name for name in names if name in chosen]


def _differing(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the metrics that are not the same in all runs."""
    names: dict[str, None] = {}  # a set that keeps the order
    for values in metrics:
        names.update(dict.fromkeys(values))
    differing = []
    for name in names:
        if len({str(values.get(name)) for values in metrics}) > 1:
            differing.append(name)
    return differing


def over_seeds(runs: Sequence[SweptRun]) -> dict[str, dict[str, Spread]]:
    """Overrides without seeds -> metric -> its spread, for groups of at least two runs."""
    groups: dict[str, list[SweptRun]] = {}
    for run in runs:
        label = without_seed(run)
        if label is not None:
            groups.setdefault(label, []).append(run)
    spreads = {}
    for label, members in groups.items():
        found = _spreads([member.metrics for member in members if not member.outcome.error])
        if found:
            spreads[label] = found
    return spreads


def without_seed(run: SweptRun) -> str | None:
    """What a run differs in beside its seed ("all": nothing); None if it has no seed of its own."""
    rest = [word for word in run.varied if key_of(word).rpartition(".")[2] != "seed"]
    return None if len(rest) == len(run.varied) else " ".join(rest) or "all"


def _spreads(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """The spread of each metric that is a number in at least two runs."""
    names = dict.fromkeys(name for values in metrics for name in values)
    spreads = {}
    for name in names:
        values = [run[name] for run in metrics if is_number(run.get(name))]
        if len(values) > 1:
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            spreads[name] = Spread(mean, deviation, len(values))
    return spreads


def is_number(value: Any) -> bool:
    """Whether a metric is a finite number; a training that diverged may have measured NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def save(runs: Sequence[SweptRun], folder: Path, name: str) -> list[Path]:
    """Write all metrics as CSV (one run per row) and JSON (with the spreads); return the files.

    Args:
        folder: of the runs.
        name: of the run from which the sweep starts.
    """
    stem = f"{name}+sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    files = [folder / f"{stem}.csv", folder / f"{stem}.json"]
    folder.mkdir(parents=True, exist_ok=True)
    metrics = [run.metrics for run in runs]
    names = list(dict.fromkeys(name for values in metrics for name in values))
    with files[0].open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["run", "state", "seconds", *names])
        for run, values in zip(runs, metrics, strict=True):
            cells = [values.get(name, "") for name in names]
            table.writerow(mask([run.label, run.state, round(run.seconds, 3), *cells]))
    text = json.dumps(mask(as_json(runs)), indent=1, ensure_ascii=False)
    files[1].write_text(text + "\n", encoding="utf-8")
    return files


def as_json(runs: Sequence[SweptRun]) -> dict[str, Any]:
    """The comparison for programs."""
    rows = [
        {
            "overrides": run.label,
            "state": run.state,
            "seconds": run.seconds,
            "metrics": run.metrics,
        }
        for run in runs
    ]
    seeds = {
        label: {name: dc.asdict(spread) for name, spread in spreads.items()}
        for label, spreads in over_seeds(runs).items()
    }
    claims = {name: dc.asdict(claim) for name, claim in claims_over_runs(runs).items()}
    return {"runs": rows, "over_seeds": seeds, "claims": claims}
