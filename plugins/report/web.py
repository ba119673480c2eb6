"""Chapter "the web": the document funnel, how good the filters were, and what was thrown away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmstages.plugins.report import plots
from llmstages.plugins.report.steps import Chain, View


def build(chain: Chain, examples: int) -> list[dict[str, Any]]:
    """One entry a corpus."""
    return [
        _corpus(step, chain, examples) for step in chain.kind("corpus") if step.has("funnel.json")
    ]


def _corpus(step: View, chain: Chain, examples: int) -> dict[str, Any]:
    rows, gold = step.json("funnel.json", []), step.json("gold.json", {})
    stages = [
        row for row in rows if row.get("kind") != "split"
    ]  # a split counts paragraphs, the others pages
    dropped = step.table("dropped")
    read = step.metrics.get("read") or max([row["seen"] for row in rows], default=0)
    left, funnel = read, []
    for row in stages:
        before, left = left, left - row["dropped"]
        funnel.append({**row, "before": before, "left": left, "gold": _gold(row["rule"], gold)})
    return {
        "name": step.name,
        "read": read,
        "kept": left,
        "funnel": funnel,
        "metrics": step.metrics,
        "overall": gold.get("overall"),
        "splits": [row for row in rows if row.get("kind") == "split"],
        "examples": _examples(dropped, examples),
        "kept_example": _kept(step),
        "sweep": _sweep(step.json("sweep.json", [])),
        "sources": [p.name for p in chain.parents(step)],
    }


def _sweep(rules: list[dict[str, Any]]) -> list[Any]:
    """For each rule of an annotated corpus: the share of documents that a limit would drop, over the limit; the limit set is marked."""
    charts = []
    for rule in rules:
        values, most = rule["quantiles"], rule["most"] is not None
        now = rule["most"] if most else rule["least"]
        if values[0] == values[-1] or now is None:  # all alike, or only counted
            continue
        # A limit drops what lies beyond it, so of equal values the last percentile counts for "most", the first for "least".
        shares = (
            {value: 100 - share for share, value in enumerate(values)}
            if most
            else {value: share for share, value in reversed([*enumerate(values)])}
        )
        points = sorted(shares.items())
        charts.append(
            plots.lines(
                f"{rule['filter']}.{rule['rule']}".rstrip("."),
                [plots.Series("dropped", points)],
                x="most allowed" if most else "least allowed",
                y=f"% dropped by the limit; now {now:g}",
                unit=" %",
                zero=True,
                at_x=now,
            )
        )
    return charts


def _gold(rule: str, gold: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is known of a rule: the gold has names of filters, the funnel of their rules."""
    return gold.get(rule) or gold.get(rule.removeprefix("extract.").split(".")[0])


def _examples(dropped: Any, most: int) -> list[dict[str, Any]]:
    """Dropped pages by rule, at most ``most`` each, different excerpts first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in dropped:
        mine = found.setdefault(str(row["rule"]), [])
        if len(mine) < most and all(row["excerpt"] != other["excerpt"] for other in mine):
            mine.append(
                {key: str(row.get(key, "")) for key in ("url", "rule", "value", "limit", "excerpt")}
            )
    return [{"rule": rule, "pages": pages} for rule, pages in found.items()]


def _kept(step: View) -> dict[str, str] | None:
    table = step.table()
    return {"url": str(table[0]["url"]), "text": str(table[0]["text"])} if len(table) else None
