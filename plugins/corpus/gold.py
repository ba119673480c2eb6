"""How well the filters did, where the documents say what should have happened.

The labels are ``gold.jsonl``, one row for each page: url, keep, rule, personal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def measure(
    gold: Iterable[Mapping[str, Any]], dropped: Mapping[str, str], read: set[str]
) -> dict[str, dict[str, Any]]:
    """Precision and recall of dropping, ``overall`` and by rule.

    Recall of a rule: share of the pages that the gold wants dropped for this rule and that were
    dropped, by whichever filter came first. Precision of a rule: share of the pages dropped by
    this filter that the gold wants dropped at all. None if there is nothing to divide by.

    Args:
        gold: the labels.
        dropped: url -> the filter that dropped it.
        read: all URLs.
    """
    labels = {row["url"]: row for row in gold if row["url"] in read}
    unwanted = {url: row.get("rule") or "" for url, row in labels.items() if not row["keep"]}
    judged = {url: rule for url, rule in dropped.items() if url in labels}
    recalled: dict[str, list[bool]] = defaultdict(list)
    correct: dict[str, list[bool]] = defaultdict(list)
    for url, rule in unwanted.items():
        recalled[rule].append(url in judged)
    for url, rule in judged.items():
        correct[rule].append(url in unwanted)
    result = {}
    for rule in sorted({*recalled, *correct}):
        result[rule] = _figures(correct.get(rule, []), recalled.get(rule, []))
    all_correct = [url in unwanted for url in judged]
    all_recalled = [url in judged for url in unwanted]
    result["overall"] = _figures(all_correct, all_recalled)
    return result


def personal_removed(gold: Iterable[Mapping[str, Any]], texts: Mapping[str, str]) -> float | None:
    """Share of the personal strings on kept pages that are gone from their texts (url -> text).

    None if there are none.
    """
    removed = []
    for row in gold:
        if row["url"] in texts:
            text = texts[row["url"]]
            removed += [string not in text for string in row.get("personal") or ()]
    return _share(removed)


def _figures(correct: list[bool], recalled: list[bool]) -> dict[str, Any]:
    return {"precision": _share(correct), "recall": _share(recalled), "n": len(recalled)}


def _share(hits: list[bool]) -> float | None:
    return round(sum(hits) / len(hits), 4) if hits else None
