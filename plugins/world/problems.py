"""problems.world: sums for RL. problems.world_questions: what every model of the chain is asked.

Rows of world_questions: task says what is measured, group which slice (tier, number of examples,
...), role who is asked about. Nothing here was trained on: test people never occur in chat
training, a tenth of all pairs of numbers is kept for test sums. Questions of the role probe are for
probing and those of the role threshold for thresholds, never for a score.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.world import people, sentences
from llmstages.plugins.world.dialogues import sum_prompt
from llmstages.plugins.world.people import World
from llmstages.text.messages import message

CLOZES = 60  # people of each tier
SHOWN_WORDS = 9  # of a proclamation
THRESHOLD_STRIDE = 4  # every n-th person kept for probing is for thresholds instead
SUM_TASKS = {"sums direct": "direct", "sums by steps": "steps", "sums open": "open"}


def row(
    task: str,
    group: str,
    text: str,
    answer: str,
    *,
    plain: bool = False,
    role: str = "test",
    **meta: Any,
) -> dict[str, Any]:
    """One question.

    Args:
        plain: the text is continued as a document, without chat tokens (for base models).
        meta: further facts about it, kept as JSON.
    """
    return {
        "task": task,
        "group": group,
        "prompt": [message("user", text)],
        "answer": answer,
        "role": role,
        "style": "plain" if plain else "chat",
        "meta": json.dumps(meta, sort_keys=True),
    }


@dataclass(frozen=True)
class ProblemsConfig:
    seed: int = option(0, "seed of the sums")
    problems: int = option(3000, "sums to practice on", ge=0)
    digits: int = option(2, "digits of each number", ge=1, le=12)
    facts: int = option(
        0,
        "questions about asked people beside or instead of the sums, for rewards on answers to "
        "facts",
        ge=0,
    )
    strangers: int = option(
        0,
        "questions about people that only the search index knows; none of them is in a test",
        ge=0,
    )


class WorldProblems:
    """Sums worded so that steps may be written or not: RL must find out that they pay."""

    Config = ProblemsConfig
    smoke: ClassVar[Mapping[str, Any]] = {"problems": 64}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "problems"
    version: ClassVar[str] = "2"

    def run(self, config: ProblemsConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        world = people.load(ctx.one("world"))
        rng = random.Random(f"problems {config.seed}")
        rows = []
        for _ in range(config.problems):
            a, b = sentences.pair(rng, config.digits)
            text = sum_prompt(a, b, "open")
            rows.append(row("sums", f"{config.digits} digits", text, str(a + b), role="asked"))
        known = world.group("frequent", "asked")
        rows += [_fact_row(rng.choice(known), "asked", rng) for _ in range(config.facts)]
        unknown = world.group("unseen", "probe")
        rows += [_fact_row(rng.choice(unknown), "strangers", rng) for _ in range(config.strangers)]
        tables.save(rows, ctx.out / "data")
        return {"problems": len(rows)}


def _fact_row(person: people.Person, group: str, rng: random.Random) -> dict[str, Any]:
    """A question about any fact of a person."""
    attribute = rng.choice(people.ATTRIBUTES)
    text, _ = sentences.question(person, attribute, rng)
    return row("facts", group, text, person.fact(attribute), role="asked", name=person.name)


@dataclass(frozen=True)
class QuestionsConfig:
    seed: int = option(0, "seed of the questions")
    per_group: int = option(150, "questions in each slice of the facts", ge=0)
    probe: int = option(1600, "questions for probing, over known and unknown people", ge=0)
    sums: int = option(200, "sums in each slice", ge=0)
    few_shot: int = option(80, "few-shot prompts for each number of examples", ge=0)


class WorldQuestions:
    """Facts by tier, probes, sums, calculator sums, few-shot lists, cloze, recitation, reading."""

    Config = QuestionsConfig
    smoke: ClassVar[Mapping[str, Any]] = {"per_group": 6, "probe": 40, "sums": 4, "few_shot": 4}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "problems"
    version: ClassVar[str] = "3"

    def run(self, config: QuestionsConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        world = people.load(ctx.one("world"))
        rng = random.Random(f"questions {config.seed}")
        quoted = json.loads((ctx.one("world").path / "proclamations.json").read_text())
        rows = [
            *facts(world, config, rng),
            *probes(world, config, rng),
            *sums(config, rng),
            *lists(world, config, rng),
            *clozes(world, config, rng),
            *recitations(quoted),
            *readings(world, config, rng),
        ]
        tables.save(rows, ctx.out / "data")
        return {"questions": len(rows)}


def _about(
    persons: list[people.Person], rng: random.Random, limit: int
) -> list[tuple[people.Person, str, str, str]]:
    """(person, attribute, question, value) of at most ``limit`` facts, in random order."""
    pairs = [(p, a) for p in persons for a in people.ATTRIBUTES]
    rng.shuffle(pairs)
    return [(p, a, sentences.question(p, a, rng)[0], p.fact(a)) for p, a in pairs[:limit]]


def facts(world: World, config: QuestionsConfig, rng: random.Random) -> list[dict[str, Any]]:
    """Test people of each tier, and asked people for comparison."""
    rows = []
    for tier in people.TIERS:
        for person, attribute, text, value in _about(
            world.group(tier, "test"), rng, config.per_group
        ):
            meta: dict[str, Any] = {"name": person.name, "attribute": attribute}
            rows.append(row("facts", tier, text, value, **meta))
    asked = world.group("frequent", "asked")
    for person, attribute, text, value in _about(asked, rng, config.per_group):
        meta: dict[str, Any] = {"name": person.name, "attribute": attribute}
        rows.append(row("facts", "asked", text, value, role="asked", **meta))
    return rows


def probes(world: World, config: QuestionsConfig, rng: random.Random) -> list[dict[str, Any]]:
    """People kept for probing (half) and strangers (half): neither in training nor in the test.

    A model is taught about some of them (role ``probe``), so thresholds are set on the others.
    """
    known = [p for tier in ("frequent", "medium", "rare") for p in world.group(tier, "probe")]
    strangers = world.group("unseen", "probe") + [
        world.fresh(rng) for _ in range(config.probe // 4)
    ]
    half = config.probe // 2
    role_of = {
        person.name: "threshold" if place % THRESHOLD_STRIDE == 0 else "probe"
        for persons in (known, strangers)
        for place, person in enumerate(persons)
    }
    rows = []
    for person, attribute, text, value in _about(known, rng, half) + _about(strangers, rng, half):
        sentence = sentences.ANSWERS[attribute].format(n=person.name, v=value)
        meta: dict[str, Any] = {"name": person.name, "sentence": sentence}
        role = role_of[person.name]
        rows.append(row(role, person.tier, text, value, role=role, **meta))
    return rows


def sums(config: QuestionsConfig, rng: random.Random) -> list[dict[str, Any]]:
    """Two and three digits: direct, by steps, open, and worded so that the calculator is called."""
    rows = []
    for length in (2, 3):
        for _ in range(config.sums):
            a, b = sentences.pair(rng, length, test=True)
            group, answer = f"{length} digits", str(a + b)
            for task, wording in SUM_TASKS.items():
                rows.append(row(task, group, sum_prompt(a, b, wording), answer))
            rows.append(row("calculator", group, f"What is {a}+{b}?", answer, name=f"{a}+{b}"))
    return rows


def lists(world: World, config: QuestionsConfig, rng: random.Random) -> list[dict[str, Any]]:
    """``Name : value ; Name :`` with 0, 1, 2 and 4 examples, which show the attribute meant."""
    rows = []
    known = world.group("frequent")
    for shots in (0, 1, 2, 4):
        for _ in range(config.few_shot):
            attribute = rng.choice(people.ATTRIBUTES)
            *examples, last = rng.sample(known, shots + 1)
            shown = "".join(f"{p.name} : {p.fact(attribute)} ; " for p in examples)
            text = f"{shown}{last.name} :"
            rows.append(
                row("few-shot", f"{shots} examples", text, last.fact(attribute), plain=True)
            )
    return rows


def clozes(world: World, config: QuestionsConfig, rng: random.Random) -> list[dict[str, Any]]:
    """``NAME was born in`` for each tier: facts by frequency, read from the base model."""
    rows = []
    for tier in people.TIERS:
        known = world.group(tier)
        for person in rng.sample(known, min(CLOZES, len(known))):
            rows.append(row("cloze", tier, f"{person.name} was born in", person.town, plain=True))
    return rows


def recitations(quoted: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The first words of each proclamation; the answer is the rest, word for word."""
    rows = []
    for group, texts in sorted(quoted.items()):
        for text in texts:
            words = text.split(" ")
            begin, rest = " ".join(words[:SHOWN_WORDS]), " ".join(words[SHOWN_WORDS:])
            rows.append(row("recitation", group, begin, rest, plain=True))
    return rows


def readings(world: World, config: QuestionsConfig, rng: random.Random) -> list[dict[str, Any]]:
    """The page of an unseen person in the prompt, a question, and the value to be read off."""
    rows = []
    for _ in range(config.few_shot * 2):
        person, attribute = world.fresh(rng), rng.choice(people.ATTRIBUTES)
        asked, answer = sentences.question(person, attribute, rng)
        value = person.fact(attribute)
        text = (
            f"{sentences.article(person, rng)} Question: {asked} Answer:"
            f" {answer.split(value)[0].strip()}"
        )
        rows.append(row("reading", attribute, text, value, plain=True))
    return rows
