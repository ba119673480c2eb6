"""What a run was to show, and whether it did: ``value: "rl:length_last - rl:length_first", target: ">= 3"``.

The grammar is small on purpose: terms ``STEP:METRIC`` joined by " + " and " - ". A metric's own name may hold spaces,
slashes and hyphens, so an operator counts only where a new ``STEP:`` follows it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError, near

STEP = r"[A-Za-z0-9_.\-]+"
JOINT = re.compile(rf" ([+-]) (?={STEP}:)")
TERM = re.compile(rf"({STEP}):(.+)", re.DOTALL)
TARGET = re.compile(r"(>=|<=|==|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
KEYS = ("value", "target", "about", "chapter")
Metrics = Mapping[str, Mapping[str, Any]]  # step -> metric -> number


@dataclass(frozen=True)
class Claim:
    """One claim or number with what was measured. target is "" for a number that is only reported."""

    name: str
    formula: str
    target: str
    about: str
    value: float | None
    missing: tuple[str, ...]
    steps: tuple[str, ...]
    chapter: str = ""
    parts: tuple[float | None, ...] = field(default=())

    @property
    def met(self) -> bool:
        """Whether the target holds; what was not measured is not met."""
        return self.value is not None and holds(self.target, self.value)

    def row(self) -> dict[str, Any]:
        """As in claims.json."""
        return {
            "name": self.name,
            "value": self.value,
            "target": self.target,
            "met": self.met,
            "about": self.about,
        }


def terms(formula: str, where: str) -> list[tuple[int, str, str]]:
    """(sign, step, metric) of each term. Raises StageError naming the claim."""
    pieces = JOINT.split(formula.strip())
    found = []
    for sign, text in zip(["+", *pieces[1::2]], pieces[::2], strict=True):
        match = TERM.fullmatch(text.strip())
        if not match:
            raise StageError(
                f"{where}: {text.strip()!r} in value {formula!r} is no term; write STEP:METRIC, joined by ' + ' or ' - ', "
                'for example value: "rl:length_last - rl:length_first"'
            )
        found.append((1 if sign == "+" else -1, match[1], match[2].strip()))
    return found


def holds(target: str, value: float) -> bool:
    """Whether a value keeps a target such as ">= 0.9"."""
    sign, limit = limit_of(target, "target")
    return COMPARE[sign](value, limit)


def limit_of(target: str, where: str) -> tuple[str, float]:
    """(comparison, number) of a target. Raises StageError."""
    match = TARGET.fullmatch(target.strip())
    if not match:
        raise StageError(
            f"{where}: the target {target!r} cannot be read; write one comparison and a number, such as '>= 0.9' or '< 3'"
        )
    return match[1], float(match[2])


def read(name: str, spec: Any, metrics: Metrics, *, targeted: bool, group: str = "claims") -> Claim:
    """One claim, measured. A term that no step measured gives value None and is named in ``missing``."""
    where = f"report.{group}.{name}"
    if not isinstance(spec, Mapping) or not spec.get("value"):
        raise StageError(
            f"{where} says no value; write {{value: STEP:METRIC, {'target: >= 0.9, ' if targeted else ''}about: in plain words}}"
        )
    for key in spec:
        if key not in KEYS:
            raise StageError(
                f"{where} has no key {key!r}.{near(key, KEYS)} It takes {', '.join(KEYS)}"
            )
    target = str(spec.get("target") or "")
    if targeted:
        limit_of(target, where)
    parts: list[float | None] = []
    missing, found = [], terms(str(spec["value"]), where)
    for _, step, metric in found:
        number = _number(metrics.get(step, {}).get(metric))
        parts.append(number)
        if number is None:
            missing.append(why_missing(step, metric, metrics))
    value = (
        None
        if missing
        else sum(
            sign * part for (sign, _, _), part in zip(found, parts, strict=True) if part is not None
        )
    )
    return Claim(
        name,
        str(spec["value"]),
        target,
        str(spec.get("about") or ""),
        value,
        tuple(missing),
        tuple(step for _, step, _ in found),
        str(spec.get("chapter") or ""),
        tuple(parts),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def why_missing(step: str, metric: str, metrics: Metrics) -> str:
    """The missing term with the reason, so that a typo is told from a step that is not in the run."""
    if step not in metrics:
        return f"{step}:{metric} (no step {step} in this run)"
    guess = near(metric, metrics[step], cutoff=0.9)
    return f"{step}:{metric}" + (f" ({guess.strip()})" if guess else "")


def read_all(
    specs: Mapping[str, Any], metrics: Metrics, *, targeted: bool, group: str
) -> list[Claim]:
    """All claims in the order given."""
    return [
        read(name, spec, metrics, targeted=targeted, group=group) for name, spec in specs.items()
    ]
