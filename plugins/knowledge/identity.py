"""knowledge.identity: dialogues that teach a model its name and maker, and questions to measure it.

Templates of questions and answers are filled in: those of phrasings.py, or of a file with
{{name}} and {{author}}, as LLaMA-Factory's identity.json and ms-swift's self-cognition set. Some
phrasings are held out: they are written to identity.json, and problems.identity makes problems of
them, so that success is measured on phrasings that were never trained. Identity data alone
overwrites what a model knows (ms-swift#519): mix it with other dialogues, and replay documents.
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
        "", "what it says it can do, as the rest of 'I can ...'; empty: that is not taught"
    )
    file: str = option(
        "",
        "dialogues to use instead of the phrasings here: JSON, JSON lines, Parquet or CSV with "
        "{{name}} and {{author}}",
        file=True,
    )
    dialogues: int = option(
        2400, "different dialogues at most, spread evenly over the topics", ge=1
    )
    copies: int = option(
        1, "how often each of them is written: its weight beside other dialogues", ge=1
    )
    test_fraction: float = option(
        0.2,
        "share of the phrasings, of each topic or of a file, that are kept for problems.identity",
        ge=0,
        lt=1,
        renamed_from="held_out",
    )
    seed: int = option(0, "seed of what is held out, chosen and in which order")

    def __post_init__(self) -> None:
        for key in ("name", "maker"):
            value = getattr(self, key)
            has_control_characters = any(ord(character) < 32 for character in value)
            if not value.strip() or PLACEHOLDER.search(value) or has_control_characters:
                raise StageError(
                    f"knowledge.identity: {key}={value!r} is not a name: one line of text without "
                    "placeholders is needed"
                )


class Identity:
    """Dialogues about who the model is, who made it, and who it is not."""

    Config = IdentityConfig
    smoke: ClassVar[Mapping[str, Any]] = {"dialogues": 60}
    inputs: ClassVar[Mapping[str, str]] = {}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "2"

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
        make = from_file if config.file else from_phrasings
        topics, questions = make(config, values, ctx, rng)
        for rows in topics:
            rng.shuffle(rows)
        # One row of each topic in turn, so that a limit takes evenly from all of them.
        possible = [row for row in chain.from_iterable(zip_longest(*topics)) if row]
        different = possible[: config.dialogues]
        share = "all" if len(different) == len(possible) else str(len(different))
        ctx.say(
            f"{ctx.step}: {len(possible)} different dialogues can be made, {share} are taken "
            f"({ctx.step}.dialogues={config.dialogues})"
        )
        written = different * config.copies
        rng.shuffle(written)
        trained = {normalized(row["messages"][:-1]) for row in possible}
        held_out = [
            question for question in questions if normalized(question["prompt"]) not in trained
        ]
        if len(held_out) < len(questions):
            ctx.say(
                f"{ctx.step}: {len(questions) - len(held_out)} held-out questions left out, "
                "since other rows ask the same"
            )
        tables.save(written, ctx.out / "data")
        facts = {"name": values["name"], "maker": values["maker"], "questions": held_out}
        tables.write_json(ctx.out / "identity.json", facts)
        return {
            "dialogues": len(written),
            "different": len(different),
            "possible": len(possible),
            "topics": len(topics),
            "held_out_questions": len(held_out),
        }


def normalized(prompt: Sequence[Mapping[str, Any]]) -> str:
    """What is asked, with case and spaces made equal: they make no other question."""
    text = " ".join(str(turn["content"]) for turn in prompt)
    return " ".join(text.casefold().split())


def hold_out(phrasings: Sequence[str], share: float, rng: random.Random) -> list[str]:
    """The phrasings that are not trained: at least one where a share is asked for, never all."""
    if not share or not phrasings:
        return []
    count = max(1, round(share * len(phrasings)))
    return rng.sample(phrasings, min(count, len(phrasings) - 1))


def from_phrasings(
    config: IdentityConfig, values: Mapping[str, str], ctx: Context, rng: random.Random
) -> tuple[list[list[Row]], list[Question]]:
    """(rows of each topic, held-out questions): every opening, question, name and answer."""
    own = {values["name"].casefold(), values["maker"].casefold()}
    others = {other for topic in TOPICS for other in topic.about}
    if same := sorted(other for other in others if other.casefold() in own):
        ctx.say(f"{ctx.step}: not denied, since it is the name or the maker: {', '.join(same)}")
    topics: list[list[Row]] = []
    questions: list[Question] = []
    # Topics that share their questions share the split: "yes" to a trained question about its own
    # name must not answer a held-out "no" about another one.
    splits: dict[tuple[str, ...], list[str]] = {}
    for topic in TOPICS:
        if not all(values.get(name) for name in PLACEHOLDER.findall(topic.stated)):
            ctx.say(
                f"{ctx.step}: {topic.group} are not taught, since none are given: "
                f"{ctx.step}.{topic.group}"
            )
            continue
        # Drawn also where the split is known, so that every topic uses as many random numbers.
        drawn = hold_out(topic.questions, config.test_fraction, rng)
        held_out = splits.setdefault(topic.questions, drawn)
        rows: list[Row] = []
        for phrasing, text in ask(topic, values, own):
            if phrasing in held_out:
                questions.append(
                    {
                        "prompt": [message("user", text)],
                        "answer": fill(topic.stated, values, topic.group),
                        "group": topic.group,
                    }
                )
                continue
            for answer in topic.answers:
                reply = message("assistant", fill(answer, values, topic.group))
                rows.append({"messages": [message("user", text), reply], "group": topic.group})
        topics.append(rows)
    return topics, questions


def ask(topic: Topic, values: Mapping[str, str], own: Collection[str]) -> Iterator[tuple[str, str]]:
    """(phrasing, question) for each phrasing, other name to ask about, and opening."""
    for phrasing in topic.questions:
        for other in topic.about:
            if other.casefold() in own:
                continue
            known = {**values, "who": fill(other, values, topic.group)}
            capitalized = phrasing[0].upper() + phrasing[1:]
            for opening in OPENINGS:
                yield phrasing, opening + fill(capitalized, known, topic.group)


def from_file(
    config: IdentityConfig, values: Mapping[str, str], ctx: Context, rng: random.Random
) -> tuple[list[list[Row]], list[Question]]:
    """(rows of one topic, held-out questions) from a file.

    Questions are held out whose answers all state the name or the maker, since a reply to them must
    state it too; a reply to another question cannot be checked.
    """
    from llmstages.text.grading import is_correct

    by_question: dict[str, list[Row]] = {}
    for turns in read_dialogues(config, values, ctx):
        row = {"messages": turns, "group": "file"}
        by_question.setdefault(normalized(turns[:-1]), []).append(row)
    if not by_question:
        raise StageError(f"{ctx.step}.file={config.file} holds no rows")
    stated: dict[str, list[str]] = {}
    for question, rows in by_question.items():
        answers = [row["messages"][-1]["content"] for row in rows]
        stated[question] = [
            key
            for key in ("name", "maker")
            if all(is_correct(answer, values[key]) for answer in answers)
        ]
    if not any(stated.values()):
        raise StageError(
            f"{ctx.step}.file={config.file}: no answer states the name or the maker; write "
            "{{name}} and {{author}} where they belong"
        )
    can_be_checked = sorted(question for question, keys in stated.items() if keys)
    held_out = hold_out(can_be_checked, config.test_fraction, rng)
    questions = []
    for question in held_out:
        prompt = by_question[question][0]["messages"][:-1]
        for key in stated[question]:
            questions.append({"prompt": prompt, "answer": values[key], "group": key})
    taught: list[Row] = []
    for question, rows in by_question.items():
        if question not in held_out:
            taught += rows
    different = list({str(row["messages"]): row for row in taught}.values())
    if len(different) < len(taught):
        ctx.say(
            f"{ctx.step}: {len(taught) - len(different)} rows of the file left out, which repeat "
            "another one"
        )
    return [different], questions


def read_dialogues(
    config: IdentityConfig, values: Mapping[str, str], ctx: Context
) -> Iterator[list[dict[str, Any]]]:
    """The dialogues of the file, with their placeholders filled in."""
    from llmstages.data.formats import InvalidRow, dialogue
    from llmstages.data.readers.record import Rejected
    from llmstages.data.readers.rows import rows as read

    path = Path(config.file).expanduser()
    if not path.is_file():
        raise StageError(
            f"{ctx.step}.file={config.file}: there is no such file; correct the path, or leave it "
            "out to use the phrasings of llmstages"
        )
    known = {key: values[key] for key in ("name", "author", "maker")}
    for position, row in read(path):
        where = f"{ctx.step}.file, row {position}"
        if isinstance(row, Rejected):
            raise StageError(
                f"{where}: {row.reason}. Each row is an object such as "
                '{"instruction": ..., "output": ...}; fix it or take it out'
            )
        try:
            turns = dialogue(row)
        except InvalidRow as error:
            raise StageError(f"{where}: {error}; fix it or take it out") from error
        yield [{**turn, "content": fill(turn["content"], known, where)} for turn in turns]
