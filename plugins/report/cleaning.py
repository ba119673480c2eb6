"""How the documents were cleaned: pages left after each rule, the gold labels, what was dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.plugins.report import plots
from llmstages.plugins.report.steps import FinishedStep


def corpora(steps: Sequence[FinishedStep], max_examples: int) -> list[dict[str, Any]]:
    """One entry per corpus that was filtered."""
    filtered = [step for step in steps if step.kind == "corpus" and step.has("funnel.json")]
    return [_corpus(step, max_examples) for step in filtered]


def _corpus(step: FinishedStep, max_examples: int) -> dict[str, Any]:
    rows = step.json("funnel.json", [])
    gold = step.json("gold.json", {})
    # An artifact made by hand has no metrics; its first rule saw all pages.
    read = step.metrics.get("read") or max([row["seen"] for row in rows], default=0)
    left = read
    funnel = []
    splits = []
    for row in rows:
        # A split counts paragraphs, the other rules count pages.
        if row.get("kind") == "split":
            splits.append(row)
            continue
        left -= row["dropped"]
        funnel.append({**row, "left": left, "gold": _gold_of(row["rule"], gold)})
    return {
        "name": step.name,
        "read": read,
        "kept": left,
        "funnel": funnel,
        "splits": splits,
        "overall": gold.get("overall"),
        "sweep": sweep_charts(step.json("sweep.json", [])),
        "examples": _dropped_examples(step.table("dropped"), max_examples),
        "kept_example": _kept_example(step),
    }


def _gold_of(rule: str, gold: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The gold labels of a rule, which are by filter where a filter has several rules."""
    return gold.get(rule) or gold.get(rule.removeprefix("extract.").split(".")[0])


def sweep_charts(rules: Sequence[Mapping[str, Any]]) -> list[Any]:
    """For each rule of an annotated corpus, the share of documents dropped over the limit.

    Rules whose documents all measure the same, or that have no limit, are left out.
    """
    charts = []
    for rule in rules:
        limit = rule["least"] if rule["most"] is None else rule["most"]
        quantiles = rule["quantiles"]
        if limit is None or quantiles[0] == quantiles[-1]:
            continue
        charts.append(_sweep_chart(rule, limit))
    return charts


def _sweep_chart(rule: Mapping[str, Any], limit: float) -> Any:
    is_upper = rule["most"] is not None
    # A limit drops what lies beyond it. So of several equal quantiles the last one says how many
    # an upper limit drops, and the first one says how many a lower limit drops.
    dropped: dict[float, int] = {}
    for percent, value in enumerate(rule["quantiles"]):
        if is_upper:
            dropped[value] = 100 - percent
        else:
            dropped.setdefault(value, percent)
    return plots.lines(
        f"{rule['filter']}.{rule['rule']}".rstrip("."),
        [plots.Series("dropped", sorted(dropped.items()))],
        x="most allowed" if is_upper else "least allowed",
        y=f"% dropped by the limit; now {limit:g}",
        unit=" %",
        zero=True,
        at_x=limit,
    )


def _dropped_examples(dropped: Any, max_examples: int) -> list[dict[str, Any]]:
    """Dropped pages by rule, with different excerpts."""
    by_rule: dict[str, list[dict[str, Any]]] = {}
    if max_examples < 1:
        return []
    for row in dropped:
        pages = by_rule.setdefault(str(row["rule"]), [])
        is_new = all(row["excerpt"] != page["excerpt"] for page in pages)
        if is_new and len(pages) < max_examples:
            columns = ("url", "rule", "value", "limit", "excerpt")
            pages.append({column: str(row.get(column, "")) for column in columns})
    return [{"rule": rule, "pages": pages} for rule, pages in by_rule.items()]


def _kept_example(step: FinishedStep) -> dict[str, str] | None:
    table = step.table()
    if not len(table):
        return None
    return {"url": str(table[0]["url"]), "text": str(table[0]["text"])}
