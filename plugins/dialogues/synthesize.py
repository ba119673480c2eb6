"""dialogues.synthesize: dialogues written by a model from documents, by a guideline, and judged by it.

How most instruction data is made today: a guideline for labellers (helpful, truthful, harmless: Ouyang et al. 2022, appendix B) goes to a
model instead of to people, with a document to stay true to. The writer and the judge are steps of the run, models of the Hub, or
models behind an OpenAI-compatible address. A writer that cannot write JSON (form=text) is asked for question and answer one by one.
Left out on purpose: tool calls, system turns, and a guess of what it costs; tokens are counted where the address reports them.
"""

from __future__ import annotations

import dataclasses as dc
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from llmstages.core.digest import sha256
from llmstages.core.errors import StageError
from llmstages.core.secrets import NAME
from llmstages.core.stage import Artifact, Context, option
from llmstages.data.formats import InvalidRow
from llmstages.data.readers.examples import Examples, convert, write
from llmstages.data.readers.record import Rejected
from llmstages.plugins.dialogues import prompts
from llmstages.plugins.dialogues.answers import FAILED, Answerer, Desk, Said
from llmstages.plugins.dialogues.prompts import ASKS, Order
from llmstages.text.messages import message

REPEATED, JUDGED = ("duplicate", "near_duplicate"), ("score", "unjudged")


@dc.dataclass(frozen=True)
class SynthesizeConfig:
    seed: int = option(
        0,
        "seed of the choice of documents, of what is asked about them, and of a model step's sampling",
    )
    documents: int = option(1000, "documents written about, drawn by the seed; 0: all")
    dialogues_per_document: int = option(
        1, "dialogues asked for about each document", renamed_from="each"
    )
    turns: int = option(1, "questions in a dialogue, each with its answer")
    request_types: list[str] = option(
        help="what the user asks for; one is drawn for each dialogue",
        factory=lambda: list(ASKS),
        renamed_from="asks",
    )
    guideline: str = option(
        str(Path(__file__).with_name("guideline.md")),
        "a text file: what makes a dialogue helpful, truthful and harmless",
        file=True,
    )
    characters: int = option(
        6000, "characters of a document that are shown at most; documents cut are counted"
    )
    form: str = option(
        "json",
        "json: the writer is asked for a whole dialogue as JSON; text: for each question and each answer alone",
        choices=("json", "text"),
    )
    model: str = option(
        "", "name of the writer at the endpoint; unused where a step is wired as writer"
    )
    judge_model: str = option(
        "",
        "name of the judge at the endpoint; empty, and no step wired as judge: nothing is judged",
    )
    min_score: int = option(
        4,
        "least score (1 to 5) that helpful, truthful and harmless must each have",
        renamed_from="least",
    )
    max_similarity: float = option(
        0.8,
        "a question this similar to an earlier one is dropped (Jaccard of words and word pairs); 1 drops equal ones alone",
        renamed_from="similar",
    )
    temperature: float = option(0.8, "temperature of the writer; a judge has 0")
    max_new_tokens: int = option(1024, "longest answer in tokens")
    body: dict[str, Any] = option(
        help="more fields of each request to the endpoint, null removes one: {max_tokens: null, max_completion_tokens: 900}",
        factory=dict,
    )
    num_examples: int = option(
        5,
        "dialogues whose requests and answers are saved for reading (samples.jsonl)",
        renamed_from="samples",
    )
    endpoint: str = option(
        "", "address of an OpenAI-compatible service, as http://localhost:8000/v1", identity=False
    )
    key_variable: str = option(
        "OPENAI_API_KEY",
        "NAME of the environment variable that holds the endpoint's key; unset: no key is sent",
        identity=False,
    )
    concurrency: int = option(8, "requests at the endpoint at once", identity=False)
    timeout: float = option(120.0, "seconds until a request counts as failed", identity=False)
    retries: int = option(
        4, "times a failed request (429, 5xx, no connection, timeout) is repeated", identity=False
    )
    wait: float = option(
        1.0,
        "seconds before the first repetition; twice as long before each next one",
        identity=False,
    )
    patience: int = option(
        5, "failed requests in a row after which the endpoint is given up", identity=False
    )
    batch: int = option(16, "requests a model step answers at once; sampling depends on it")

    def __post_init__(self) -> None:
        for name, least in (
            ("documents", 0),
            ("each", 1),
            ("turns", 1),
            ("characters", 1),
            ("max_new_tokens", 1),
            ("batch", 1),
            ("concurrency", 1),
            ("patience", 1),
            ("retries", 0),
            ("samples", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")
        if not 1 <= self.min_score <= 5 or not 0 < self.max_similarity <= 1:
            raise ValueError(
                f"min_score={self.min_score} must be 1 to 5, max_similarity={self.max_similarity} above 0 and at most 1"
            )
        if not self.request_types:
            raise ValueError("asks is empty: name at least one thing that a user asks for")
        if not re.fullmatch(
            r"[A-Z_][A-Z0-9_]*", self.key_variable
        ):  # a key in its place would end in records, so it is not shown either
            raise ValueError(
                "key_variable takes the NAME of an environment variable, in capitals (OPENAI_API_KEY), never a key itself"
            )
        if self.endpoint:
            address = urlsplit(self.endpoint)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError("endpoint must be an address like http://localhost:8000/v1")
            if "@" in address.netloc or any(
                NAME.search(name) for name in parse_qs(address.query, keep_blank_values=True)
            ):
                raise ValueError(
                    "endpoint holds a password or a key, which would end in records; put it into the environment variable of key_variable"
                )


class Synthesize:
    """Dialogues that a model (a step, or behind an address) writes from documents by a guideline, judged by it."""

    Config = SynthesizeConfig
    inputs: ClassVar[Mapping[str, str]] = {
        "corpus": "corpus|documents",
        "writer": "model?",
        "judge": "model?",
    }
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"

    def estimate(self, config: SynthesizeConfig, known: Mapping[str, Any]) -> Mapping[str, float]:
        """At most as many as are asked for."""
        return (
            {"examples": config.documents * config.dialogues_per_document}
            if config.documents
            else {}
        )

    def run(self, config: SynthesizeConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        writer_step, judge_step = ctx.maybe("writer"), ctx.maybe("judge")
        if not writer_step and not (config.endpoint and config.model):
            raise StageError(
                f"{ctx.step} has nobody to write: wire a model (steps.{ctx.step}.writer=sft, or hub:ORG/NAME@REVISION), or name a service: "
                f"{ctx.step}.endpoint=http://localhost:8000/v1 {ctx.step}.model=NAME, its key in the environment variable {config.key_variable}"
            )
        if config.judge_model and not judge_step and not config.endpoint:
            raise StageError(
                f"{ctx.step}.judge_model={config.judge_model} is asked at {ctx.step}.endpoint, which is empty; set it, or wire steps.{ctx.step}.judge"
            )
        try:
            guideline = Path(config.guideline).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StageError(
                f"{ctx.step}.guideline={config.guideline} cannot be read ({error}); name a text file in UTF-8"
            ) from error
        orders = take_orders(config, ctx)
        desk = Desk(ctx, [order.id for order in orders[: config.num_examples]])
        writer = self.answerer(config, ctx, writer_step, config.model, config.temperature)
        found = self.written(config, ctx, desk, writer, orders, guideline)
        drop_repeated(found, config.max_similarity)
        if judge_step or config.judge_model:
            del writer  # the judge may need the memory
            judge = self.answerer(config, ctx, judge_step, config.judge_model, 0.0)
            drop_low(
                found,
                desk,
                judge,
                {order.id: order for order in orders},
                guideline,
                config.min_score,
            )
        else:
            ctx.say(
                f"{ctx.step}: nobody judged these dialogues; wire a model as steps.{ctx.step}.judge, or set {ctx.step}.judge_model"
            )
        tables.write_lines(
            ctx.out / "samples.jsonl",
            [
                {"id": name, "fate": fate(found, name), "exchanges": shown}
                for name, shown in desk.shown.items()
            ],
        )
        metrics = write(
            found,
            ctx,
            "what the writer wrote",
            f"Ask another model, or, where it writes no JSON, {ctx.step}.form=text",
        )
        return self.counted(ctx, found, len(orders), metrics, desk.counts)

    def answerer(
        self,
        config: SynthesizeConfig,
        ctx: Context,
        step: Artifact | None,
        model: str,
        temperature: float,
    ) -> Answerer:
        """The model step, else the model of that name at the endpoint."""
        if step:
            from llmstages.plugins.dialogues.model_step import ModelStep

            return ModelStep(
                step,
                ctx,
                {
                    "temperature": temperature,
                    "max_tokens": config.max_new_tokens,
                    "seed": config.seed,
                },
                config.batch,
            )
        from llmstages.plugins.dialogues.endpoint import Endpoint

        return Endpoint(
            ctx.step,
            config.endpoint,
            model,
            {"temperature": temperature, "max_tokens": config.max_new_tokens, **config.body},
            config.key_variable,
            config.concurrency,
            config.timeout,
            config.retries,
            config.wait,
            config.patience,
        )

    def written(
        self,
        config: SynthesizeConfig,
        ctx: Context,
        desk: Desk,
        writer: Answerer,
        orders: Sequence[Order],
        guideline: str,
    ) -> Examples:
        """Every order as a row of the table, or as a dropped one with its reason."""
        if config.form == "json":
            said = desk.ask(
                writer,
                [order.id for order in orders],
                [prompts.for_dialogue(guideline, order, config.turns) for order in orders],
                "writing",
            )
            told: list[Any] = [one if one.rule else one.text for one in said]
        else:
            told = turn_by_turn(desk, writer, orders, guideline, config.turns)
        by_id = {order.id: order for order in orders}

        def row(given: Mapping[str, Any], left_out: Counter[str]) -> dict[str, Any]:
            order = by_id[given["id"]]
            return {
                "messages": prompts.read_dialogue(given["said"], left_out),
                "id": order.id,
                "document": order.document,
                "url": order.url,
                "text_sha256": sha256(order.text),
                "ask": order.ask,
                "writer": writer.name,
                "guideline_sha256": sha256(guideline),
                "seed": config.seed,
            }

        source = [
            (
                order.id,
                Rejected(order.id, one.reason, one.rule, order.url)
                if isinstance(one, Said)
                else {"said": one, "id": order.id},
            )
            for order, one in zip(orders, told, strict=True)
        ]
        return convert(source, row, ctx)

    def counted(
        self,
        ctx: Context,
        found: Examples,
        asked: int,
        metrics: Mapping[str, float],
        spent: Mapping[str, int],
    ) -> Mapping[str, float]:
        """asked = kept + failed + unparsable + duplicates + judged_out, told in a line."""
        reasons = Counter(row["rule"] for row in found.dropped)
        failed, repeats, judged = (
            sum(reasons[rule] for rule in rules) for rules in (FAILED, REPEATED, JUDGED)
        )
        unparsable = len(found.dropped) - failed - repeats - judged
        counts = {
            "asked": asked,
            "kept": len(found.kept),
            "written": len(found.kept) + repeats + judged,
            "failed": failed,
            "unparsable": unparsable,
            "duplicates": repeats,
            "judged_out": judged,
        }
        ctx.say(f"{ctx.step}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        return {
            **counts,
            **{
                name: spent.get(name, 0)
                for name in ("requests", "prompt_tokens", "completion_tokens")
            },
            **metrics,
        }


def take_orders(config: SynthesizeConfig, ctx: Context) -> list[Order]:
    """What is to be written: documents drawn by the seed, in their order; what cannot be shown is counted."""
    from llmstages.data import tables

    rng, source = random.Random(config.seed), ctx.one("corpus")
    table = tables.load(source.path / "data")
    chosen = (
        sorted(rng.sample(range(len(table)), config.documents))
        if 0 < config.documents < len(table)
        else list(range(len(table)))
    )
    orders, passed, cut = [], Counter[str](), 0
    numbers: Counter[str] = (
        Counter()
    )  # documents of two sources may share an id; dialogues never do
    for row in table.select(chosen):
        text = row["text"] if "text" in row else row["body"].decode("utf-8", "replace")
        if row.get("media", "text/plain") != "text/plain" or not text.strip():
            passed[
                "no text"
                if not text.strip()
                else "HTML (wire a corpus step, which extracts the text)"
            ] += 1
            continue
        cut += len(text) > config.characters
        for _ in range(config.dialogues_per_document):
            numbers[row["id"]] += 1
            orders.append(
                Order(
                    f"{row['id']}#{numbers[row['id']]}",
                    row["id"],
                    row["url"],
                    text[: config.characters],
                    rng.choice(config.request_types),
                )
            )
    for why, count in passed.items():
        ctx.say(f"{ctx.step}: {count} of {len(chosen)} documents passed over: {why}")
    if cut:
        ctx.say(
            f"{ctx.step}: {cut} documents shown without what follows their first {config.characters} characters (characters=)"
        )
    if not orders:
        raise StageError(
            f"{ctx.step}: {source.name} holds no document to write about ({len(table)} in all); wire a corpus with texts: steps.{ctx.step}.corpus=STEP"
        )
    return orders


def turn_by_turn(
    desk: Desk, writer: Answerer, orders: Sequence[Order], guideline: str, turns: int
) -> list[Any]:
    """For each order its turns, or the Said that says why there are none; question and answer are asked for one after the other."""
    told: list[Any] = [[] for _ in orders]
    for number in range(1, turns + 1):
        for role, prompt, what in (
            ("user", prompts.for_question, "questions"),
            ("assistant", prompts.for_answer, "answers"),
        ):
            going = [i for i, turns_so_far in enumerate(told) if isinstance(turns_so_far, list)]
            asked = [prompt(guideline, orders[i], told[i]) for i in going]
            said = desk.ask(
                writer,
                [orders[i].id for i in going],
                asked,
                f"{what} {number} of {turns}" if turns > 1 else what,
            )
            for i, one in zip(going, said, strict=True):
                told[i] = (
                    one
                    if one.rule
                    else [*told[i], message(role, prompts.without_thinking(one.text))]
                )
    return told


def drop_repeated(found: Examples, similar: float) -> None:
    """Move rows whose questions were asked before to the dropped ones."""
    from llmstages.plugins.dialogues.repeats import repeated

    again = repeated([asked(row) for row in found.kept], similar)
    _drop(
        found,
        (
            (
                number,
                Rejected(
                    found.kept[number]["id"],
                    f"{likeness:.2f} like {found.kept[first]['id']}",
                    REPEATED[likeness < 1],
                    found.kept[number]["url"],
                    f"< {similar:g}",
                ),
            )
            for number, (first, likeness) in again.items()
        ),
    )


def drop_low(
    found: Examples,
    desk: Desk,
    judge: Answerer,
    orders: Mapping[str, Order],
    guideline: str,
    least: int,
) -> None:
    """Ask the judge about each row; its scores become columns, rows with a low one are moved to the dropped ones."""
    names = [row["id"] for row in found.kept]
    said = desk.ask(
        judge,
        names,
        [prompts.for_scores(guideline, orders[row["id"]], row["messages"]) for row in found.kept],
        "judging",
    )
    low: dict[int, Rejected] = {}
    for number, (row, one) in enumerate(zip(found.kept, said, strict=True)):
        try:
            if one.rule:
                raise InvalidRow("unjudged", f"{one.rule}: {one.reason}")
            row |= {"judge": judge.name, **prompts.read_scores(one.text)}
            worst = min(prompts.QUALITIES, key=lambda quality: row[quality])
            if row[worst] < least:
                raise InvalidRow("score", f"{worst} {row[worst]}")
        except InvalidRow as error:
            low[number] = Rejected(row["id"], str(error), error.rule, row["url"], f">= {least}")
    _drop(found, low.items())


def _drop(found: Examples, gone: Iterable[tuple[int, Rejected]]) -> None:
    numbers = {}
    for number, bad in gone:
        numbers[number] = bad.as_dropped(asked(found.kept[number])[:200])
    found.dropped.extend(numbers.values())
    found.kept[:] = [row for number, row in enumerate(found.kept) if number not in numbers]


def asked(row: Mapping[str, Any]) -> str:
    """The questions of a row."""
    return "\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "user")


def fate(found: Examples, name: str) -> str:
    """What became of a dialogue."""
    return next(
        (f"dropped: {row['rule']}: {row['value']}" for row in found.dropped if row["id"] == name),
        "kept",
    )
