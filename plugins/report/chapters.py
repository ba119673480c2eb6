"""The chapters of the page, filled with what the run holds. Empty chapters are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llmstages.plugins.report import (
    answers,
    arena,
    cleaning,
    graph,
    outline,
    plots,
    profile,
    provenance,
    recollection,
    scores,
    tokens,
    training,
)
from llmstages.plugins.report.claims import Claim
from llmstages.plugins.report.outline import ChapterSpec
from llmstages.plugins.report.plots import Series
from llmstages.plugins.report.steps import Chain, FinishedStep

PROBED = 2  # known questions that are shown with their answers, and as many unknown ones


@dataclass(frozen=True)
class Section:
    """A part of a chapter: its template is ``NAME.html.j2``, which shows ``data``."""

    name: str
    data: Any


@dataclass(frozen=True)
class Chapter:
    """A chapter with all that it shows."""

    id: str
    title: str
    text: str
    claims: Sequence[Claim]
    numbers: Sequence[Claim]
    sections: Sequence[Section]


@dataclass(frozen=True)
class Scope:
    """What the sections of a chapter are made from.

    Attributes:
        chain: the whole run.
        steps: the steps of the chapter, in the order of the recipe.
        task: the task of the chapter, for ``first_answers``.
        task_notes: task -> a sentence about it.
        max_examples: dropped pages shown for each rule.
        max_prompts: prompts in the comparison of all models.
    """

    chain: Chain
    steps: Sequence[FinishedStep]
    task: str
    task_notes: Mapping[str, str]
    max_examples: int
    max_prompts: int

    @property
    def models(self) -> list[FinishedStep]:
        """The language models of the chapter."""
        return [step for step in self.steps if step.kind == "model"]

    @property
    def model_names(self) -> list[str]:
        return [step.name for step in self.models]


def _probes(scope: Scope) -> list[dict[str, Any]]:
    return [_probe(scope.chain, step) for step in scope.steps if step.has("probe.jsonl")]


def _first_answers(scope: Scope) -> list[dict[str, Any]]:
    """Answers of the chapter's models and of those they were trained from."""
    models = set()
    for step in scope.models:
        models.add(step.name)
        models.update(parent.name for parent in scope.chain.parents(step) if parent.kind == "model")
    return answers.first_answers(scope.chain, models, scope.task)


def _provenance(scope: Scope) -> dict[str, Any]:
    return {
        "graph": graph.lineage(scope.chain),
        "costs": provenance.costs(scope.chain),
        "steps": provenance.configurations(scope.chain),
        "around": provenance.surroundings(scope.chain),
        "kinds": list(dict.fromkeys(step.kind for step in scope.chain.steps)),
    }


# Section -> its data. A section whose data is empty is left out.
SECTIONS: Mapping[str, Callable[[Scope], Any]] = {
    "cleaning": lambda scope: cleaning.corpora(scope.steps, scope.max_examples),
    "tokenizers": lambda scope: tokens.tokenizers(scope.steps),
    "probes": _probes,
    "training": lambda scope: training.cards(scope.chain, scope.steps),
    "tool_calls": lambda scope: answers.tool_calls(scope.chain, scope.model_names),
    "base_tasks": lambda scope: scores.base_tasks(scope.chain, scope.model_names, scope.task_notes),
    "recollection": lambda scope: recollection.charts(scope.chain),
    "arena": lambda scope: arena.arenas(scope.chain),
    "profile": lambda scope: profile.profiles(scope.chain),
    "refusals": lambda scope: scores.refusals(scope.chain),
    "replies": lambda scope: answers.replies(scope.chain, scope.model_names),
    "first_answers": _first_answers,
    "comparison": lambda scope: answers.side_by_side(scope.chain, scope.max_prompts),
    "scores": lambda scope: scores.score_tables(scope.chain),
    "provenance": _provenance,
}


def build(
    chain: Chain,
    specs: Sequence[ChapterSpec],
    claims: Sequence[Claim],
    numbers: Sequence[Claim],
    task_notes: Mapping[str, str],
    max_examples: int,
    max_prompts: int,
) -> list[Chapter]:
    """The chapters that have something to show, in order.

    Args:
        chain: the run.
        specs: the outline of the page.
        claims: measured claims.
        numbers: measured numbers without a target.
        task_notes: task -> a sentence about it.
        max_examples: dropped pages shown for each rule.
        max_prompts: prompts in the comparison of all models.
    """
    chapter_of = outline.assign_steps(chain, specs)
    claims_of = outline.group_claims(claims, chain, specs, chapter_of)
    numbers_of = outline.group_claims(numbers, chain, specs, chapter_of)
    chapters = []
    for spec in specs:
        steps = [step for step in chain.steps if chapter_of.get(step.name) == spec.id]
        scope = Scope(chain, steps, spec.task, task_notes, max_examples, max_prompts)
        chapter = Chapter(
            id=spec.id,
            title=spec.title,
            text=spec.text,
            claims=claims_of[spec.id],
            numbers=numbers_of[spec.id],
            sections=_sections(spec, scope),
        )
        if chapter.claims or chapter.numbers or chapter.sections:
            chapters.append(chapter)
    return chapters


def _sections(spec: ChapterSpec, scope: Scope) -> list[Section]:
    """The sections of a chapter that have anything to show."""
    sections = []
    for name in spec.show:
        data = SECTIONS[name](scope)
        if _has_data(data):
            sections.append(Section(name, data))
    return sections


def _has_data(data: Any) -> bool:
    """Whether there is anything to show; a mapping is empty if all of its values are."""
    if isinstance(data, Mapping):
        return any(map(bool, data.values()))
    return bool(data)


def _probe(chain: Chain, step: FinishedStep) -> dict[str, Any]:
    """Shares of known answers by group, the calibration curve, and some questions."""
    defaults: dict[str, Any] = {
        "answers": [],
        "verdicts": [],
    }  # of probes that kept one answer alone
    rows = [defaults | row for row in step.lines("probe.jsonl")]
    limit = step.metrics.get("known_from", step.config.get("known", 0.8))
    shares: dict[str, list[float]] = {}
    for row in rows:
        shares.setdefault(str(row.get("group", "all")), []).append(float(row["share"]))
    bars = []
    for group in chain.sorted_groups(shares):
        known = [share for share in shares[group] if share >= limit]
        count = len(shares[group])
        bars.append({"group": group, "known": len(known) / count, "n": count})
    known_rows = filter(lambda row: row["share"] >= limit, rows)
    unknown_rows = filter(lambda row: row["share"] == 0, rows)
    examples = [*islice(known_rows, PROBED), *islice(unknown_rows, PROBED)]
    return {
        "name": step.name,
        "bars": bars,
        "examples": examples,
        "limit": limit,
        "chart": _calibration_chart(step),
    }


def _calibration_chart(step: FinishedStep) -> Any:
    """Agreement of several answers against the share of right ones, beside the ideal line."""
    bins = step.json("calibration.json", {}).get("bins", [])
    if not bins:
        return ""
    points = [(float(row["agreement"]), float(row["right"])) for row in bins]
    ideal = [(place, place) for place, _ in points]
    return plots.lines(
        f"{step.name}: calibration",
        [Series("share right", points, "s1"), Series("as often as they agree", ideal, "s3")],
        x="agreement of the answers",
        y="share of the commonest answers that are right",
        zero=True,
    )
