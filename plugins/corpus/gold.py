"""How well the filters did, where the documents say what should have happened (``gold.jsonl``: url, keep, rule, personal)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def measure(
    gold: Iterable[Mapping[str, Any]], dropped: Mapping[str, str], read: set[str]
) -> dict[str, dict[str, Any]]:
    """Precision and recall of dropping, ``overall`` and by rule.

    dropped: url -> the filter that dropped it; read: all URLs. Recall of a rule: share of the pages that the gold wants
    dropped for this rule and that were dropped, by whichever filter came first. Precision of a rule: share of the pages
    dropped by this filter that the gold wants dropped at all. None where there is nothing to divide by.
    """
    labels = {row["url"]: row for row in gold if row["url"] in read}
    unwanted = {url: row.get("rule") or "" for url, row in labels.items() if not row["keep"]}
    judged = {url: rule for url, rule in dropped.items() if url in labels}
    wanted_by_rule, judged_by_rule = defaultdict(list), defaultdict(list)
    for url, rule in unwanted.items():
        wanted_by_rule[rule].append(url in judged)
    for url, rule in judged.items():
        judged_by_rule[rule].append(url in unwanted)
    result = {
        rule: {
            "precision": _share(judged_by_rule.get(rule)),
            "recall": _share(wanted_by_rule.get(rule)),
            "n": len(wanted_by_rule.get(rule, ())),
        }
        for rule in sorted({*wanted_by_rule, *judged_by_rule})
    }
    result["overall"] = {
        "precision": _share([url in unwanted for url in judged]),
        "recall": _share([url in judged for url in unwanted]),
        "n": len(unwanted),
    }
    return result


def personal_removed(gold: Iterable[Mapping[str, Any]], texts: Mapping[str, str]) -> float | None:
    """Share of the personal strings on kept pages that are gone from their texts (url -> text); None where there are none."""
    return _share(
        [
            string not in texts[row["url"]]
            for row in gold
            if row["url"] in texts
            for string in row.get("personal") or ()
        ]
    )


def _share(hits: list[bool] | None) -> float | None:
    return round(sum(hits) / len(hits), 4) if hits else None
