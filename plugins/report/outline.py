"""The outline of the page: its chapters, and which chapter each step and claim belongs to.

A recipe tells its own story with ``report.chapters``, where each chapter names its steps. Without
it the page has the general chapters below, and a step finds its chapter by kind and slot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.plugins.report.claims import Claim
from llmstages.plugins.report.steps import Chain, FinishedStep

# An id becomes an anchor of the page.
CHAPTER_ID = re.compile(r"[a-z][a-z0-9_]*")
RESERVED_IDS = ("claims", "story")  # ids of other parts of the page
KEYS = ("title", "text", "steps", "show", "task")
# What a chapter shows unless it says so; each of these is about the steps of the chapter.
DEFAULT_SECTIONS = ("cleaning", "tokenizers", "probes", "training", "tool_calls")
SECTION_NAMES = (
    *DEFAULT_SECTIONS,
    "base_tasks",
    "refusals",
    "replies",
    "first_answers",
    "comparison",
    "arena",
    "recollection",
    "profile",
    "scores",
    "provenance",
)

GENERAL_CHAPTERS = {
    "data": {
        "title": "The data",
        "text": "A language model is made of text. Each rule below looks at every page that is "
        "left and drops some; the bars show how many pages remain.",
        "show": ["cleaning"],
    },
    "tokens": {
        "title": "Text becomes tokens",
        "text": "A tokenizer cuts text into tokens of a fixed vocabulary; the model reads their "
        "numbers. Tap or point at a token to see its number and bytes.",
        "show": ["tokenizers"],
    },
    "pretraining": {
        "title": "Pretraining",
        "text": "The model is trained to predict the next token of documents.",
        "show": ["training", "base_tasks"],
    },
    "fine_tuning": {
        "title": "Fine-tuning",
        "text": "The training continues with dialogues. Only the tokens of the assistant carry "
        "loss: the model is not trained to write the questions.",
        "show": ["refusals", "probes", "training", "tool_calls"],
    },
    "reinforcement": {
        "title": "Rewards and reinforcement learning",
        "text": "The model is trained on what its answers are worth: by a program that checks "
        "them, by a reward model, or by pairs of a better and a worse answer.",
        "show": ["training", "replies"],
    },
    "comparison": {
        "title": "Every model, side by side",
        "text": "The same prompts, answered by every model of the run.",
        "show": ["comparison", "arena", "recollection", "profile", "scores"],
    },
    "provenance": {
        "title": "How it was made",
        "text": "Every step with what it took, what it cost and how to make it again.",
        "show": ["provenance"],
    },
}


@dataclass(frozen=True)
class ChapterSpec:
    """A chapter as configured.

    Attributes:
        id: the anchor of the chapter on the page.
        title: its heading.
        text: its introduction.
        steps: names of the steps it is about.
        show: names of its sections, in order.
        task: the task whose answers the section ``first_answers`` shows.
    """

    id: str
    title: str
    text: str = ""
    steps: tuple[str, ...] = ()
    show: tuple[str, ...] = DEFAULT_SECTIONS
    task: str = ""


def parse_chapters(chapters: Mapping[str, Any]) -> list[ChapterSpec]:
    """The chapters of a configuration, or the general ones if it has none.

    Raises:
        StageError: an id that cannot be an anchor, an unknown key or section, a chapter without a
            title, a step that two chapters name.
    """
    specs = [_parse_chapter(id, values) for id, values in (chapters or GENERAL_CHAPTERS).items()]
    chapter_of: dict[str, str] = {}
    for spec in specs:
        for step in spec.steps:
            if step in chapter_of:
                raise StageError(
                    f"report.chapters.{spec.id}.steps: the step {step!r} is also in the chapter "
                    f"{chapter_of[step]!r}. Name each step in one chapter"
                )
            chapter_of[step] = spec.id
    return specs


def _parse_chapter(id: str, values: Any) -> ChapterSpec:
    where = f"report.chapters.{id}"
    if not CHAPTER_ID.fullmatch(id) or id in RESERVED_IDS:
        raise StageError(
            f"{where}: the id becomes an anchor of the page. Use lower-case letters, digits and _, "
            f"and none of {', '.join(RESERVED_IDS)}"
        )
    if not isinstance(values, Mapping) or not values.get("title"):
        raise StageError(f"{where} has no title. Write {{title: ..., text: ..., steps: [STEP]}}")
    for key in values:
        if key not in KEYS:
            raise StageError(
                f"{where} has no key {key!r}.{near(key, KEYS)} It takes {', '.join(KEYS)}"
            )
    show = tuple(values.get("show") or DEFAULT_SECTIONS)
    for section in show:
        if section not in SECTION_NAMES:
            raise StageError(
                f"{where}.show: there is no section {section!r}.{near(section, SECTION_NAMES)} "
                f"There are {', '.join(SECTION_NAMES)}"
            )
    return ChapterSpec(
        id=id,
        title=str(values["title"]),
        text=str(values.get("text") or ""),
        steps=tuple(values.get("steps") or ()),
        show=show,
        task=str(values.get("task") or ""),
    )


def check_claim_chapters(group: str, claims: Mapping[str, Any], ids: Sequence[str]) -> None:
    """Raise StageError for a claim or number whose chapter does not exist."""
    for name, spec in claims.items():
        chapter = spec.get("chapter")
        if chapter and chapter not in ids:
            raise StageError(
                f"report.{group}.{name}.chapter: there is no chapter {chapter!r}."
                f"{near(chapter, ids)} There are {', '.join(ids)}"
            )


def assign_steps(chain: Chain, specs: Sequence[ChapterSpec]) -> dict[str, str]:
    """Step name -> chapter id, for the steps that have a chapter.

    If any chapter names its steps, a step that none of them names joins the last chapter among
    those of the steps it took. Otherwise kind and slot decide.
    """
    order = [spec.id for spec in specs]
    chapter_of: dict[str, str] = {}
    for spec in specs:
        chapter_of |= dict.fromkeys(spec.steps, spec.id)
    if not chapter_of:
        by_kind = {step.name: general_chapter(step) for step in chain.steps}
        # Chapters of a recipe may have the general ids, or only some of them.
        return {step: chapter for step, chapter in by_kind.items() if chapter in order}
    for step in chain.steps:
        parents = [parent.name for parent in chain.parents(step)]
        before = [chapter_of[parent] for parent in parents if parent in chapter_of]
        if step.name not in chapter_of and before:
            chapter_of[step.name] = max(before, key=order.index)
    return chapter_of


def general_chapter(step: FinishedStep) -> str:
    """The id of the general chapter of a step."""
    by_kind = {
        "documents": "data",
        "corpus": "data",
        "tokenizer": "tokens",
        "dialogues": "fine_tuning",
        "preferences": "reinforcement",
        "problems": "reinforcement",
        "reward_model": "reinforcement",
    }
    if step.kind != "model":
        return by_kind.get(step.kind, "comparison")
    if step.slot == "rl":
        return "reinforcement"
    # A model that was not trained from another one stands where the chain begins.
    if step.slot == "pretrain" or not step.inputs.get("model"):
        return "pretraining"
    return "fine_tuning"


def group_claims(
    claims: Sequence[Claim],
    chain: Chain,
    specs: Sequence[ChapterSpec],
    chapter_of: Mapping[str, str],
) -> dict[str, list[Claim]]:
    """Chapter id -> its claims, in the order of the configuration.

    A claim stands in the chapter that it names, else in the last one among those of the steps it is
    about: the steps of its formula and the models whose scores it uses. A claim about steps without
    a chapter stands in the last chapter.
    """
    order = [spec.id for spec in specs]
    grouped: dict[str, list[Claim]] = {id: [] for id in order}
    for claim in claims:
        positions = [len(order) - 1]
        if claim.chapter:
            positions = [order.index(claim.chapter)]
        elif chapters := _chapters_about(claim, chain, chapter_of):
            positions = list(map(order.index, chapters))
        grouped[order[max(positions)]].append(claim)
    return grouped


def _chapters_about(claim: Claim, chain: Chain, chapter_of: Mapping[str, str]) -> set[str]:
    """The chapters of the steps that a claim is about."""
    names = set()
    for term in claim.terms:
        # Metrics of evaluations are named TASK/GROUP/MODEL/METRIC.
        names.update([term.step, *term.metric.split("/")])
    # An evaluation scores models of many chapters, so its own says nothing.
    names -= {step.name for step in chain.of_kind("scores")}
    return {chapter_of[name] for name in names if name in chapter_of}
