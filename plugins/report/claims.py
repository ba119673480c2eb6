"""What a run should show, and whether it does: a formula over metrics and a target.

``{value: "rl:length_last - rl:length_first", target: ">= 3"}``. The grammar is small on purpose:
terms ``STEP:METRIC`` joined by " + " and " - ". The name of a metric may hold spaces, slashes and
hyphens, so an operator counts only where another ``STEP:`` follows it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError, near

# The grammar of a formula and of a target. An operator has spaces around it and a STEP: after it,
# because " - " and "/" also occur in names of tasks.
STEP = r"[A-Za-z0-9_.\-]+"
OPERATOR = re.compile(rf" ([+-]) (?={STEP}:)")
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
# Shares of those questions that led to a call, which are fewer than ``n``
OF_SOME = ("query", "page_right", "right_when_called")
ROUNDING = 1e-9  # what sums of floating-point numbers may be off by
Metrics = Mapping[str, Mapping[str, Any]]  # step -> metric -> number


@dataclass(frozen=True)
class Term:
    """``sign * STEP:METRIC``; sign is 1 or -1."""

    sign: int
    step: str
    metric: str


@dataclass(frozen=True)
class Pairs:
    """A difference of two shares that were measured on the same questions.

    Attributes:
        interval: the ends of its 95 % interval.
        number: of questions.
        chance: the p-value of McNemar's test.
    """

    interval: tuple[float, float]
    number: int
    chance: float


# What is known of the answers behind two terms; None where they are not of the same questions.
Paired = Callable[[Sequence[Term]], "Pairs | None"]


def no_pairs(terms: Sequence[Term]) -> Pairs | None:
    """Nothing is known but the shares."""
    return None


@dataclass(frozen=True)
class Claim:
    """One claim or number with its measured value.

    Attributes:
        name: what is claimed, in a few words.
        formula: as configured.
        terms: the terms of the formula.
        target: such as ">= 0.9"; "" for a number that is only reported.
        about: one sentence.
        chapter: the id of its chapter; "" where the steps of the formula decide.
        value: None if a term was not measured.
        missing: the terms that were not measured, with the reason.
        interval: the ends of the 95 % interval of the value; None where a term has none.
        number: of questions behind the term that has the fewest; None with the interval.
        chance: where two models answered the same questions, the probability of such a difference
            if they were equally good (McNemar's test); None elsewhere.
    """

    name: str
    formula: str
    terms: tuple[Term, ...]
    target: str
    about: str
    chapter: str
    value: float | None
    missing: tuple[str, ...]
    interval: tuple[float, float] | None = None
    number: int | None = None
    chance: float | None = None

    @property
    def met(self) -> bool:
        """Whether the target holds. A claim without a value is not met."""
        return self.value is not None and holds(self.target, self.value)

    @property
    def certain(self) -> bool:
        """Whether the whole interval meets the target; false for a point estimate."""
        if self.interval is None or self.value is None or not self.target:
            return False
        return self.met and all(holds(self.target, end) for end in self.interval)

    def row(self) -> dict[str, Any]:
        """The claim as in claims.json."""
        return {
            "name": self.name,
            "value": self.value,
            "target": self.target,
            "met": self.met,
            "certain": self.certain,
            "chance": self.chance,
            "interval": self.interval,
            "n": self.number,
            "about": self.about,
        }


def parse_formula(formula: str, where: str) -> tuple[Term, ...]:
    """The terms of a formula. Raises StageError naming ``where`` for a term it cannot read."""
    parts = OPERATOR.split(formula.strip())
    texts = parts[::2]
    signs = ["+", *parts[1::2]]
    terms = []
    for sign, text in zip(signs, texts, strict=True):
        match = TERM.fullmatch(text.strip())
        if not match:
            raise StageError(
                f"{where}: {text.strip()!r} in the value {formula!r} is not a term. "
                "Write STEP:METRIC, joined by ' + ' or ' - ', "
                'for example value: "rl:length_last - rl:length_first"'
            )
        terms.append(Term(1 if sign == "+" else -1, match[1], match[2].strip()))
    return tuple(terms)


def parse_target(target: str, where: str) -> tuple[str, float]:
    """(comparison, limit) of a target. Raises StageError naming ``where``."""
    match = TARGET.fullmatch(target.strip())
    if not match:
        raise StageError(
            f"{where}: the target {target!r} cannot be read. "
            "Write one comparison and a number, such as '>= 0.9' or '< 3'"
        )
    return match[1], float(match[2])


def holds(target: str, value: float) -> bool:
    """Whether a value meets a target such as ">= 0.9".

    A sum of shares that equals the limit but for rounding (0.3 - 0.1 and 0.2) equals it.
    """
    comparison, limit = parse_target(target, "target")
    if math.isclose(value, limit, rel_tol=ROUNDING, abs_tol=ROUNDING):
        value = limit
    return COMPARE[comparison](value, limit)


def parse_claim(name: str, spec: Any, *, targeted: bool, group: str = "claims") -> tuple[Term, ...]:
    """Check the configuration of a claim and return the terms of its formula.

    Args:
        name: its name.
        spec: its configuration, ``{value, target, about, chapter}``.
        targeted: whether a target is required.
        group: the option it stands in, for messages.

    Raises:
        StageError: no value, an unknown key, a target or a formula that cannot be read.
    """
    where = f"report.{group}.{name}"
    if not isinstance(spec, Mapping) or not spec.get("value"):
        target = "target: >= 0.9, " if targeted else ""
        raise StageError(
            f"{where} has no value. Write {{value: STEP:METRIC, {target}about: in plain words}}"
        )
    for key in spec:
        if key not in KEYS:
            raise StageError(
                f"{where} has no key {key!r}.{near(key, KEYS)} It takes {', '.join(KEYS)}"
            )
    if targeted:
        parse_target(str(spec.get("target") or ""), where)
    return parse_formula(str(spec["value"]), where)


def measure(
    name: str,
    spec: Any,
    metrics: Metrics,
    *,
    targeted: bool,
    group: str = "claims",
    paired: Paired = no_pairs,
) -> Claim:
    """One claim with its value.

    Takes the arguments of parse_claim(), the metrics of all steps, and what is known of answers to
    the same questions.
    """
    terms = parse_claim(name, spec, targeted=targeted, group=group)
    total = 0.0
    missing = []
    for term in terms:
        number = _finite_number(metrics.get(term.step, {}).get(term.metric))
        if number is None:
            missing.append(_why_missing(term, metrics))
        else:
            total += term.sign * number
    interval = None if missing else _interval(terms, metrics, total)
    number = None if missing else _number(terms, metrics)
    chance = None
    pairs = None if missing else paired(terms)
    if pairs is not None:
        interval, number, chance = pairs.interval, pairs.number, pairs.chance
    return Claim(
        name=name,
        formula=str(spec["value"]),
        terms=terms,
        target=str(spec.get("target") or ""),
        about=str(spec.get("about") or ""),
        chapter=str(spec.get("chapter") or ""),
        value=None if missing else total,
        missing=tuple(missing),
        interval=interval,
        number=number,
        chance=chance,
    )


def _interval(terms: Sequence[Term], metrics: Metrics, total: float) -> tuple[float, float] | None:
    """The 95 % interval of a sum of shares, from those of its terms.

    After Newcombe 1998 ("Interval estimation for the difference between independent proportions",
    method 10): the distances of the ends are added as squares. Models that were asked the same
    questions are not independent; where their answers are kept, paired.py does better.
    """
    below = above = 0.0
    for term in terms:
        of_step = metrics[term.step]
        value = float(of_step[term.metric])
        low = _finite_number(of_step.get(f"{term.metric}_low"))
        high = _finite_number(of_step.get(f"{term.metric}_high"))
        if low is None or high is None:
            return None
        down, up = value - low, high - value
        if term.sign < 0:
            down, up = up, down
        below += down**2
        above += up**2
    return total - math.sqrt(below), total + math.sqrt(above)


def _number(terms: Sequence[Term], metrics: Metrics) -> int | None:
    """The questions behind the term that has the fewest: the metric ``n`` beside its own."""
    numbers = []
    for term in terms:
        group, slash, metric = term.metric.rpartition("/")
        if metric in OF_SOME:
            return None
        number = _finite_number(metrics[term.step].get(f"{group}{slash}n"))
        if number is None:
            return None
        numbers.append(int(number))
    return min(numbers, default=None)


def measure_all(
    specs: Mapping[str, Any],
    metrics: Metrics,
    *,
    targeted: bool,
    group: str,
    paired: Paired = no_pairs,
) -> list[Claim]:
    """All claims in the order of the configuration."""
    return [
        measure(name, spec, metrics, targeted=targeted, group=group, paired=paired)
        for name, spec in specs.items()
    ]


def _finite_number(value: Any) -> float | None:
    # bool is a subclass of int, but a flag is not a measurement.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _why_missing(term: Term, metrics: Metrics) -> str:
    """The term and the reason: a step that is not in the run, or the metric that was meant."""
    text = f"{term.step}:{term.metric}"
    if term.step not in metrics:
        return f"{text} (no step {term.step} in this run)"
    # Names of metrics are alike, so only a near miss is worth a suggestion.
    suggestion = near(term.metric, metrics[term.step], cutoff=0.9).strip()
    return f"{text} ({suggestion})" if suggestion else text
