"""Questions of several hops: no page holds the answer, and each call needs the result before it.

``What is the number of A plus the number of B?`` takes a search for A, one for B, and a sum of what
they found. Numbers of people stand in no page that was trained on, only in an almanac that can be
searched (pages.world_encyclopaedia with ``numbers``), so nothing but calls can answer.

dialogues.world_hops  questions about people nobody has heard of, with their pages and calls; the
                      stage tools.search_tokens runs them. Each name occurs once, so that a model
                      learns to copy it into its query and not to prefer those it has seen
problems.world_hops   the same questions about test people, of one hop and of several
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.world import people, sentences
from llmstages.plugins.world.people import Person
from llmstages.plugins.world.problems import row
from llmstages.text.messages import message

SEARCH, CALCULATOR = "search", "calculator"
ONE_HOP, SEVERAL_HOPS = "one hop", "two searches and a sum"
SUMS = (
    "What is the number of {a} plus the number of {b}?",
    "Add the numbers of {a} and {b}.",
    "What do the numbers of {a} and {b} make together?",
)


def sum_question(first: Person, second: Person, rng: random.Random) -> tuple[str, str]:
    """(question, answer) about the numbers of two people."""
    total = int(first.number) + int(second.number)
    return rng.choice(SUMS).format(a=first.name, b=second.name), str(total)


def sum_calls(first: Person, second: Person) -> list[dict[str, str]]:
    """The calls that answer it; ``answer`` is what the result of each must hold."""
    total = int(first.number) + int(second.number)
    return [
        {"tool": SEARCH, "argument": first.name, "answer": first.number},
        {"tool": SEARCH, "argument": second.name, "answer": second.number},
        {
            "tool": CALCULATOR,
            "argument": f"{first.number}+{second.number}",
            "answer": str(total),
        },
    ]


@dataclass(frozen=True)
class HopDialoguesConfig:
    seed: int = option(0, "seed of people and wording")
    sums: int = option(2500, "questions that take two searches and a sum", ge=0)
    single: int = option(800, "questions about the number of one person", ge=0)


class WorldHops:
    """Questions about strangers that take several calls, and some that take one."""

    Config = HopDialoguesConfig
    smoke: ClassVar[Mapping[str, Any]] = {"sums": 40, "single": 20}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "2"

    def run(self, config: HopDialoguesConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        world = people.load(ctx.one("world"))
        rng = random.Random(f"hops {config.seed}")
        rows = []
        for _ in range(config.sums):
            strangers = world.fresh(rng), world.fresh(rng)
            question, answer = sum_question(*strangers, rng)
            calls = sum_calls(*strangers)
            rows.append(_dialogue(question, f"answer {answer}", calls, strangers, rng))
        for _ in range(config.single):
            person = world.fresh(rng)
            question, answer = sentences.question(person, "number", rng)
            call = {"tool": SEARCH, "argument": person.name, "answer": person.number}
            rows.append(_dialogue(question, answer, [call], [person], rng))
        rng.shuffle(rows)
        tables.save(rows, ctx.out / "data")
        return {"dialogues": len(rows), "calls": 3 * config.sums + config.single}


def _dialogue(
    question: str,
    answer: str,
    calls: Sequence[Mapping[str, str]],
    strangers: Sequence[Person],
    rng: random.Random,
) -> dict[str, Any]:
    stated = (*people.ATTRIBUTES, "number")
    return {
        "messages": [message("user", question), message("assistant", answer)],
        "task": "hops",
        "calls": json.dumps(calls),
        "pages": json.dumps([sentences.article(person, rng, stated) for person in strangers]),
    }


@dataclass(frozen=True)
class HopProblemsConfig:
    seed: int = option(0, "seed of people and wording")
    per_group: int = option(150, "questions of one hop, and of several", ge=1)


class HopProblems:
    """Questions about test people that take one call, or three."""

    Config = HopProblemsConfig
    smoke: ClassVar[Mapping[str, Any]] = {"per_group": 6}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "problems"
    version: ClassVar[str] = "1"

    def run(self, config: HopProblemsConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        world = people.load(ctx.one("world"))
        persons = [person for person in world.people if person.role == "test"]
        rng = random.Random(f"hop problems {config.seed}")
        rows = []
        for _ in range(config.per_group):
            first, second = rng.sample(persons, 2)
            text, answer = sum_question(first, second, rng)
            rows.append(row("hops", SEVERAL_HOPS, text, answer, name=first.name))
            text, _ = sentences.question(first, "number", rng)
            rows.append(row("hops", ONE_HOP, text, first.number, name=first.name))
        tables.save(rows, ctx.out / "data")
        return {"questions": len(rows)}
