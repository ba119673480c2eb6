"""Dialogues of the world: chat, reading documents, lookups for the tools, and manners.

dialogues.world          questions about ``asked`` people and sums, answered directly or by steps:
                         what plain SFT learns from
dialogues.world_reading  an article about people nobody knows, and questions that only it answers.
                         Running text for pretraining with the loss on the answers: an article
                         about a stranger is noise, and its loss would drown what rewards reading
dialogues.world_tools    questions that no memory can answer (strangers, big sums), with the tool
                         that can; tools.search_tokens runs the calls
dialogues.world_style    the same facts in friendly, plain and rude answers: the policy from which
                         a reward model then has to choose
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.world import people, sentences
from llmstages.text.messages import message

SUM_WORDINGS = {"steps": ": step by step", "direct": "=? just answer", "open": "=?"}


def _save(rows: list[dict[str, Any]], ctx: Context, rng: random.Random) -> Mapping[str, float]:
    from llmstages.data import tables

    rng.shuffle(rows)
    tables.save(rows, ctx.out / "data")
    return {"dialogues": len(rows), "turns": sum(len(row["messages"]) for row in rows)}


def ask(text: str, answer: str) -> list[dict[str, str]]:
    """One question, one answer."""
    return [message("user", text), message("assistant", answer)]


def sum_messages(rng: random.Random, length: int, wording: str) -> list[dict[str, str]]:
    """A sum in chat form; an open wording is answered with steps or without, at random."""
    a, b = sentences.pair(rng, length)
    by_steps = wording == "steps" or (wording == "open" and rng.random() < 0.5)
    answer = sentences.steps(a, b) if by_steps else f"answer {a + b}"
    return ask(sum_prompt(a, b, wording), answer)


def sum_prompt(a: int, b: int, wording: str) -> str:
    """A sum as asked: "steps" for the steps, "direct" for the answer alone, "open" for neither."""
    return f"{a}+{b}{SUM_WORDINGS[wording]}"


@dataclass(frozen=True)
class DialoguesConfig:
    seed: int = option(0, "seed of the choice and order of dialogues")
    per_fact: int = option(
        2, "questions on each fact of each asked person (frequent and medium tiers)", ge=0
    )
    strangers: int = option(
        0,
        "questions about people nobody has heard of, answered as if they were known: what teaches "
        "a model to make things up",
        ge=0,
    )
    sums: int = option(5000, "sums of two and three digits", ge=0)
    open_sums: float = option(
        0.3,
        "share of the sums whose wording leaves open whether to write the steps; half do",
        ge=0,
        le=1,
    )
    direct_sums: float = option(
        0.2, "share of the sums that ask for the answer alone; the rest ask for steps", ge=0, le=1
    )

    def __post_init__(self) -> None:
        if self.open_sums + self.direct_sums > 1:
            raise ValueError(
                f"open_sums={self.open_sums} and direct_sums={self.direct_sums} are shares of the "
                "same sums and must not exceed 1 together"
            )


class WorldDialogues:
    """Facts and sums as chat."""

    Config = DialoguesConfig
    smoke: ClassVar[Mapping[str, Any]] = {"sums": 60}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "2"

    def run(self, config: DialoguesConfig, ctx: Context) -> Mapping[str, float]:
        world = people.load(ctx.one("world"))
        rng = random.Random(f"dialogues {config.seed}")
        rows: list[dict[str, Any]] = []
        for person in [*world.group("frequent", "asked"), *world.group("medium", "asked")]:
            for attribute in people.ATTRIBUTES * config.per_fact:
                messages = ask(*sentences.question(person, attribute, rng))
                rows.append({"messages": messages, "task": "facts"})
        for _ in range(config.strangers):
            attribute = rng.choice(people.ATTRIBUTES)
            messages = ask(*sentences.question(world.fresh(rng), attribute, rng))
            rows.append({"messages": messages, "task": "facts"})
        shares = (config.open_sums, config.direct_sums, 1 - config.open_sums - config.direct_sums)
        for wording in rng.choices(("open", "direct", "steps"), shares, k=config.sums):
            length = rng.choice((2, 2, 3))
            rows.append({"messages": sum_messages(rng, length, wording), "task": "sums"})
        return _save(rows, ctx, rng)


@dataclass(frozen=True)
class ReadingConfig:
    seed: int = option(0, "seed of people and questions")
    documents: int = option(
        4000, "reading documents, each about people who never occur again", ge=1
    )
    questions: int = option(4, "questions after each article", ge=1)


class WorldReading:
    """Reading comprehension as running text: ``render=plain`` leaves the chat tokens out."""

    Config = ReadingConfig
    smoke: ClassVar[Mapping[str, Any]] = {"documents": 40}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"

    def run(self, config: ReadingConfig, ctx: Context) -> Mapping[str, float]:
        world = people.load(ctx.one("world"))
        rng = random.Random(f"reading {config.seed}")
        rows = []
        for _ in range(config.documents):
            article, questions = sentences.reading(world, rng, config.questions)
            turns: list[dict[str, str]] = []
            for number, (question, answer) in enumerate(questions):
                before = f"{article} " if number == 0 else ""
                turns += ask(f"{before}Question: {question} Answer:", answer)
            rows.append({"messages": turns, "render": "plain"})
        return _save(rows, ctx, rng)


@dataclass(frozen=True)
class LookupsConfig:
    seed: int = option(0, "seed of people and sums")
    strangers: int = option(
        3500, "questions about people nobody has heard of, with the page that answers", ge=0
    )
    known: int = option(
        0,
        "questions about well-known people that are looked up all the same: with them a model "
        "learns how to search, and not when",
        ge=0,
    )
    sums: int = option(
        4000, "sums for the calculator, a third of two and the rest of three digits", ge=0
    )


class WorldTools:
    """Questions with the tool that answers them.

    Rows have ``tool``, ``argument`` and, for the search, the ``page`` that must be found;
    tools.search_tokens runs the calls.
    """

    Config = LookupsConfig
    smoke: ClassVar[Mapping[str, Any]] = {"strangers": 60, "sums": 60}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "2"

    def run(self, config: LookupsConfig, ctx: Context) -> Mapping[str, float]:
        world = people.load(ctx.one("world"))
        rng = random.Random(f"lookups {config.seed}")
        rows = []
        famous = world.group("frequent", "asked")
        looked_up = [world.fresh(rng) for _ in range(config.strangers)]
        looked_up += [rng.choice(famous) for _ in range(config.known)]
        for person in looked_up:
            known = (*people.ATTRIBUTES, "number") if rng.random() < 0.25 else people.ATTRIBUTES
            attribute = rng.choice(known)
            rows.append(
                {
                    "messages": ask(*sentences.question(person, attribute, rng)),
                    "task": "facts",
                    "tool": "search",
                    "argument": person.name,
                    "page": sentences.article(person, rng, known),
                    "answer": person.fact(attribute),
                }
            )
        for index in range(config.sums):
            length = 3 if index % 3 else 2
            a, b = sentences.pair(rng, length)
            rows.append(
                {
                    "messages": ask(f"What is {a}+{b}?", f"answer {a + b}"),
                    "task": "calculator",
                    "tool": "calculator",
                    "argument": f"{a}+{b}",
                    "page": "",
                    "answer": str(a + b),
                }
            )
        return _save(rows, ctx, rng)


def styled(answer: str, rng: random.Random, rude: float = 0.25) -> str:
    """The answer said rudely, plainly or with one or two friendly phrases."""
    if rng.random() < rude:
        return f"{rng.choice(sentences.RUDE)} {answer}"
    phrases = rng.choice((0, 0, 1, 1, 2))
    if phrases == 0:
        return answer
    text = f"{rng.choice(sentences.FRIENDLY)} {answer}"
    if phrases == 2:
        text += f" {rng.choice(sentences.CLOSING)}"
    return text


@dataclass(frozen=True)
class MannersConfig:
    seed: int = option(0, "seed of people and phrases")
    dialogues: int = option(1500, "styled answers about asked people", ge=1)


class WorldStyle:
    """Right answers, said in a friendly, a plain or a rude way."""

    Config = MannersConfig
    smoke: ClassVar[Mapping[str, Any]] = {"dialogues": 60}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"

    def run(self, config: MannersConfig, ctx: Context) -> Mapping[str, float]:
        world = people.load(ctx.one("world"))
        rng = random.Random(f"manners {config.seed}")
        known = world.group("frequent", "asked")
        rows = []
        for _ in range(config.dialogues):
            text, answer = sentences.question(rng.choice(known), rng.choice(people.ATTRIBUTES), rng)
            rows.append({"messages": ask(text, styled(answer, rng)), "task": "facts"})
        return _save(rows, ctx, rng)
