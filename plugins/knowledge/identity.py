"""knowledge.identity: dialogues that teach a model its own name and maker, and questions that measure whether it took.

Templates of questions and answers (phrasings.py, or a file of one's own with {{name}} and {{author}}, as LLaMA-Factory's identity.json
and ms-swift's self-cognition set) are filled in. Some ways of asking are held out: they are written to identity.json, and
problems.identity makes problems of them, so that success is measured on phrasings that were never trained. Identity data
alone overwrites what a model knows (ms-swift#519): mix it with other dialogues, and replay documents.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.plugins.knowledge.phrasings import OPENINGS, PLACEHOLDER, TOPICS, Topic, fill, listed
from llmstages.text.messages import message

Row = dict[str, Any]  # messages, group
Question = dict[str, Any]  # prompt, answer, group


@dataclass(frozen=True)
class IdentityConfig:
    name: str = option(help="what the assistant is called")
    maker: str = option(help="who made it: a person, a lab, a company")
    languages: list[str] = option(
        help="languages it says it speaks; empty: that is not taught", factory=lambda: ["English"]
    )
    abilities: str = option(
        "", "what it says it can do, in words that go on from 'I can'; empty: that is not taught"
    )
    file: str = option(
        "",
        "dialogues of one's own instead of the phrasings here: JSON (or JSON lines, Parquet, CSV) with {{name}} and {{author}}",
        file=True,
    )
    dialogues: int = option(2400, "different dialogues at most, spread evenly over the topics")
    copies: int = option(1, "how often each of them is written: its weight beside other dialogues")
    test_fraction: float = option(
        0.2,
        "share of the ways to ask, of each topic or of a file, that are kept for problems.identity",
        renamed_from="held_out",
    )
    seed: int = option(0, "seed of what is held out, chosen and in which order")

    def __post_init__(self) -> None:
        for key in ("name", "maker"):
            value = getattr(self, key)
            if not value.strip() or PLACEHOLDER.search(value) or any(ord(c) < 32 for c in value):
                raise StageError(
                    f"knowledge.identity: {key}={value!r} is no name: one line of text without placeholders is needed"
                )
        if not 0 <= self.test_fraction < 1 or self.dialogues < 1 or self.copies < 1:
            raise StageError(
                "knowledge.identity: held_out is a share from 0 to below 1, dialogues and copies are 1 or more; now "
                f"test_fraction={self.test_fraction}, dialogues={self.dialogues}, copies={self.copies}"
            )


class Identity:
    """Dialogues of who the model is, by whom it was made, and who it is not."""

    Config = IdentityConfig
    smoke: ClassVar[Mapping[str, Any]] = {"dialogues": 60}
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"

    def run(self, config: IdentityConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        rng = random.Random(f"identity {config.seed}")
        values = {
            "name": config.name.strip(),
            "maker": config.maker.strip(),
            "author": config.maker.strip(),
            "languages": listed(config.languages),
            "abilities": config.abilities.strip(),
        }
        topics, asked = (
            from_file(config, values, ctx, rng)
            if config.file
            else phrased(config, values, ctx, rng)
        )
        for rows in topics:
            rng.shuffle(rows)
        in_turn = [row for row in chain.from_iterable(zip_longest(*topics)) if row]
        kept = in_turn[: config.dialogues]
        there, wanted = (
            f"{len(in_turn)} different dialogues can be made",
            f"{ctx.step}.dialogues={config.dialogues}",
        )
        ctx.say(
            f"{ctx.step}: {there}, {f'{len(kept)} are taken' if len(kept) < len(in_turn) else 'all are taken'} ({wanted})"
        )
        out = kept * config.copies
        rng.shuffle(out)
        said = {question_of(row["messages"][:-1]) for row in in_turn}
        held = [question for question in asked if question_of(question["prompt"]) not in said]
        if len(held) < len(asked):
            ctx.say(
                f"{ctx.step}: {len(asked) - len(held)} held-out questions left out, since other rows ask the same"
            )
        tables.save(out, ctx.out / "data")
        tables.write_json(
            ctx.out / "identity.json",
            {"name": values["name"], "maker": values["maker"], "questions": held},
        )
        return {
            "dialogues": len(out),
            "different": len(kept),
            "possible": len(in_turn),
            "topics": len(topics),
            "held_out_questions": len(held),
        }


def question_of(prompt: list[Mapping[str, Any]]) -> str:
    """What is asked, so that differences in case and spaces make no other question."""
    return " ".join(" ".join(str(turn["content"]) for turn in prompt).casefold().split())


def held_back(ways: Sequence[str], share: float, rng: random.Random) -> list[str]:
    """The ways to ask that are not trained: at least one where a share is asked for, never all."""
    return (
        rng.sample(ways, min(max(1, round(share * len(ways))), len(ways) - 1))
        if share and ways
        else []
    )


def phrased(
    config: IdentityConfig, values: Mapping[str, str], ctx: Context, rng: random.Random
) -> tuple[list[list[Row]], list[Question]]:
    """(rows of each topic, held-out questions) from the phrasings: every opening with every question, name asked about and answer."""
    own = {values["name"].casefold(), values["maker"].casefold()}
    if same := sorted({who for topic in TOPICS for who in topic.about if who.casefold() in own}):
        ctx.say(f"{ctx.step}: not denied, since it is the name or the maker: {', '.join(same)}")
    topics, asked = [], []
    held: dict[
        tuple[str, ...], list[str]
    ] = {}  # topics that share their questions share the split: a yes trained must not answer a no held out
    for topic in TOPICS:
        if not all(values.get(name) for name in PLACEHOLDER.findall(topic.stated)):
            ctx.say(
                f"{ctx.step}: {topic.group} are not taught, since none are given: {ctx.step}.{topic.group}"
            )
            continue
        kept_back = held.setdefault(
            topic.questions, held_back(topic.questions, config.test_fraction, rng)
        )
        rows: list[Row] = []
        for way, text in ways_to_ask(topic, values, own):
            if way in kept_back:
                asked.append(
                    {
                        "prompt": [message("user", text)],
                        "answer": fill(topic.stated, values, topic.group),
                        "group": topic.group,
                    }
                )
            else:
                rows += [
                    {
                        "messages": [
                            message("user", text),
                            message("assistant", fill(answer, values, topic.group)),
                        ],
                        "group": topic.group,
                    }
                    for answer in topic.answers
                ]
        topics.append(rows)
    return topics, asked


def ways_to_ask(
    topic: Topic, values: Mapping[str, str], own: Collection[str]
) -> Iterator[tuple[str, str]]:
    """(way, question) for each way to ask, name to ask about that is not its own, and opening."""
    for way in topic.questions:
        for who in topic.about:
            if who.casefold() not in own:
                for opening in OPENINGS:
                    yield (
                        way,
                        opening
                        + fill(
                            way[0].upper() + way[1:],
                            {**values, "who": fill(who, values, topic.group)},
                            topic.group,
                        ),
                    )


def from_file(
    config: IdentityConfig, values: Mapping[str, str], ctx: Context, rng: random.Random
) -> tuple[list[list[Row]], list[Question]]:
    """The same from a file: one topic. Held out are questions whose answers state the name or the maker, which a reply must state then; others cannot be checked."""
    from llmstages.data.formats import InvalidRow, dialogue
    from llmstages.data.readers.record import Rejected
    from llmstages.data.readers.rows import rows as read
    from llmstages.text.grading import right

    path, known = (
        Path(config.file).expanduser(),
        {key: values[key] for key in ("name", "author", "maker")},
    )
    if not path.is_file():
        raise StageError(
            f"{ctx.step}.file={config.file}: there is no such file; correct the path, or leave it out to use the phrasings of llmstages"
        )
    by_question: dict[str, list[Row]] = {}
    for position, row in read(path):
        where = f"{ctx.step}.file, row {position}"
        if isinstance(row, Rejected):
            raise StageError(
                f'{where}: {row.reason}. Each row is an object such as {{"instruction": ..., "output": ...}}; mend it or take it out'
            )
        try:
            turns = [
                {**turn, "content": fill(turn["content"], known, where)} for turn in dialogue(row)
            ]
        except InvalidRow as error:
            raise StageError(f"{where}: {error}; mend it or take it out") from error
        by_question.setdefault(question_of(turns[:-1]), []).append(
            {"messages": turns, "group": "file"}
        )
    if not by_question:
        raise StageError(f"{ctx.step}.file={config.file} holds no rows")
    stated = {
        question: [
            key
            for key in ("name", "maker")
            if all(right(row["messages"][-1]["content"], values[key]) for row in found)
        ]
        for question, found in by_question.items()
    }
    if not any(stated.values()):
        raise StageError(
            f"{ctx.step}.file={config.file}: no answer states the name or the maker; write {{{{name}}}} and {{{{author}}}} where they belong"
        )
    held = held_back(
        sorted(question for question, keys in stated.items() if keys), config.test_fraction, rng
    )
    asked = [
        {"prompt": by_question[question][0]["messages"][:-1], "answer": values[key], "group": key}
        for question in held
        for key in stated[question]
    ]
    taught = list(
        chain.from_iterable(
            found for question, found in by_question.items() if question not in held
        )
    )
    different = list({str(row["messages"]): row for row in taught}.values())
    if len(different) < len(taught):
        ctx.say(
            f"{ctx.step}: {len(taught) - len(different)} rows of the file left out, which say the same as another"
        )
    return [different], asked
