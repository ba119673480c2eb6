"""dialogues.synthesize: dialogues that a model writes from documents by a guideline, and judges.

How most instruction data is made today: a guideline for labelers (helpful, truthful, harmless:
Ouyang et al. 2022, appendix B) goes to a model instead of to people, with a document to stay true
to. The writer and the judge are steps of the run, models of the Hub, or models behind an
OpenAI-compatible address. A writer that cannot write JSON (form=text) is asked for questions and
answers one by one. Left out on purpose: tool calls, system turns, and an estimate of what it costs;
tokens are counted where the address reports them.

orders.py says what is to be written, prompts.py what is asked, data/answer_cache.py keeps answers,
screening.py decides what is kept.
"""

from __future__ import annotations

import dataclasses as dc
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.digest import sha256
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option
from llmstages.data.answer_cache import AnswerCache, Answerer
from llmstages.data.endpoint import FAILED, Answer, EndpointOptions
from llmstages.data.readers.examples import Examples, PositionedRow, convert, write
from llmstages.data.readers.record import Rejected
from llmstages.plugins.dialogues import prompts, screening
from llmstages.plugins.dialogues.orders import REQUEST_TYPES, Order, take_orders
from llmstages.text.material import without_thinking
from llmstages.text.messages import message

# What a writer gave for an order: text with JSON, turns asked for one by one, or why there is none.
Written = str | list[dict[str, str]] | Answer


@dc.dataclass(frozen=True)
class SynthesizeConfig(EndpointOptions):
    seed: int = option(
        0,
        "seed of the choice of documents, of the request types, and of a model step's samples",
    )
    documents: int = option(1000, "documents written about, drawn by the seed; 0: all", ge=0)
    dialogues_per_document: int = option(
        1, "dialogues asked for about each document", ge=1, renamed_from="each"
    )
    turns: int = option(1, "questions in a dialogue, each with its answer", ge=1)
    request_types: list[str] = option(
        help="what the user asks for; one is drawn for each dialogue",
        factory=lambda: list(REQUEST_TYPES),
        renamed_from="asks",
    )
    guideline: str = option(
        str(Path(__file__).with_name("guideline.md")),
        "a text file: what makes a dialogue helpful, truthful and harmless",
        file=True,
    )
    characters: int = option(
        6000, "characters of a document that are shown at most; documents cut are counted", ge=1
    )
    form: str = option(
        "json",
        "json: the writer is asked for a whole dialogue as JSON; text: for each question and each "
        "answer on its own",
        choices=("json", "text"),
    )
    model: str = option(
        "", "name of the writer at the endpoint; unused where a step is wired as writer"
    )
    judge_model: str = option(
        "",
        "name of the judge at the endpoint; if empty, and no step is wired as judge, nothing is "
        "judged",
    )
    min_score: int = option(
        4,
        "least score that helpful, truthful and harmless must each have",
        ge=1,
        le=5,
        renamed_from="least",
    )
    max_similarity: float = option(
        0.8,
        "a question this similar to an earlier one is dropped (Jaccard similarity of words and "
        "word pairs); 1 drops only equal ones",
        gt=0,
        le=1,
        renamed_from="similar",
    )
    temperature: float = option(0.8, "temperature of the writer; a judge has 0", ge=0)
    max_new_tokens: int = option(1024, "longest answer in tokens", ge=1)
    body: dict[str, Any] = option(
        help="more fields of each request to the endpoint; null removes one: {max_tokens: null, "
        "max_completion_tokens: 900}",
        factory=dict,
    )
    num_examples: int = option(
        5,
        "dialogues whose requests and answers are saved for reading (samples.jsonl)",
        ge=0,
        renamed_from="samples",
    )
    batch: int = option(
        16, "requests that a model step answers at once; the samples depend on it", ge=1
    )

    def __post_init__(self) -> None:
        if not self.request_types:
            raise ValueError("request_types is empty: name at least one thing that a user asks for")
        super().__post_init__()


class Synthesize:
    """Dialogues that a model writes from documents by a guideline, and that a model judges."""

    Config = SynthesizeConfig
    inputs: ClassVar[Mapping[str, str]] = {
        "corpus": "corpus|documents",
        "writer": "model?",
        "judge": "model?",
    }
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"

    def estimate(self, config: SynthesizeConfig, known: Mapping[str, Any]) -> Mapping[str, float]:
        """At most as many examples as are asked for."""
        if not config.documents:
            return {}
        return {"examples": config.documents * config.dialogues_per_document}

    def run(self, config: SynthesizeConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        _require_models(config, ctx)
        guideline = _read_guideline(config.guideline, ctx)
        orders = take_orders(
            ctx,
            seed=config.seed,
            documents=config.documents,
            dialogues_per_document=config.dialogues_per_document,
            characters=config.characters,
            request_types=config.request_types,
        )
        cache = AnswerCache(ctx, [order.id for order in orders[: config.num_examples]])
        examples = self.write_dialogues(config, ctx, cache, orders, guideline)
        screening.drop_repeated(examples, config.max_similarity)
        self.judge(config, ctx, cache, examples, orders, guideline)
        fates = screening.fates(examples, list(cache.exchanges))
        samples = [
            {"id": id, "fate": fate, "exchanges": exchanges}
            for (id, exchanges), fate in zip(cache.exchanges.items(), fates, strict=True)
        ]
        tables.write_lines(ctx.out / "samples.jsonl", samples)
        metrics = write(
            examples,
            ctx,
            "the writer's text",
            f"Ask another model, or, if it cannot write JSON, set {ctx.step}.form=text",
        )
        counts = count_fates(examples, len(orders))
        line = ", ".join(f"{count} {name}" for name, count in counts.items())
        ctx.say(f"{ctx.step}: {line}")
        spent = {
            name: cache.counts[name] for name in ("requests", "prompt_tokens", "completion_tokens")
        }
        return {**counts, **spent, **metrics}

    def answerer(
        self,
        config: SynthesizeConfig,
        ctx: Context,
        artifact: Artifact | None,
        model: str,
        temperature: float,
    ) -> Answerer:
        """The model of the artifact, else the model of that name at the endpoint."""
        settings = {"temperature": temperature, "max_tokens": config.max_new_tokens}
        if artifact:
            from llmstages.train.model_step import ModelStep

            return ModelStep(artifact, ctx, {**settings, "seed": config.seed}, config.batch)

        return config.service(ctx.step, model, {**settings, **config.body})

    def write_dialogues(
        self,
        config: SynthesizeConfig,
        ctx: Context,
        cache: AnswerCache,
        orders: Sequence[Order],
        guideline: str,
    ) -> Examples:
        """Every order as a row of the table, or as a dropped row with its reason.

        The writer lives no longer than this call: the judge may need its memory.
        """
        writer = self.answerer(config, ctx, ctx.maybe("writer"), config.model, config.temperature)
        if config.form == "json":
            written = write_whole(cache, writer, orders, guideline, config.turns)
        else:
            written = write_turn_by_turn(cache, writer, orders, guideline, config.turns)
        by_id = {order.id: order for order in orders}

        def make_row(row: Mapping[str, Any], left_out: Counter[str]) -> dict[str, Any]:
            order = by_id[row["id"]]
            return {
                "messages": prompts.parse_dialogue(row["said"], left_out),
                "id": order.id,
                "document": order.document,
                "url": order.url,
                "text_sha256": sha256(order.text),
                "ask": order.ask,
                "writer": writer.name,
                "guideline_sha256": sha256(guideline),
                "seed": config.seed,
            }

        return convert(_positioned_rows(orders, written), make_row, ctx)

    def judge(
        self,
        config: SynthesizeConfig,
        ctx: Context,
        cache: AnswerCache,
        examples: Examples,
        orders: Sequence[Order],
        guideline: str,
    ) -> None:
        """Drop the dialogues with a low score, if there is a judge."""
        artifact = ctx.maybe("judge")
        if not artifact and not config.judge_model:
            ctx.say(
                f"{ctx.step}: nobody judged these dialogues; wire a model as "
                f"steps.{ctx.step}.judge, or set {ctx.step}.judge_model"
            )
            return
        judge = self.answerer(config, ctx, artifact, config.judge_model, 0.0)
        by_id = {order.id: order for order in orders}
        screening.drop_low_scores(examples, cache, judge, by_id, guideline, config.min_score)


def _require_models(config: SynthesizeConfig, ctx: Context) -> None:
    """Refuse a step without a writer, or with a judge that cannot be reached."""
    if not ctx.maybe("writer") and not (config.endpoint and config.model):
        raise StageError(
            f"{ctx.step} has no writer: wire a model (steps.{ctx.step}.writer=sft, or "
            f"hub:ORG/NAME@REVISION), or name a service: "
            f"{ctx.step}.endpoint=http://localhost:8000/v1 {ctx.step}.model=NAME, with its key in "
            f"the environment variable {config.key_variable}"
        )
    if config.judge_model and not ctx.maybe("judge") and not config.endpoint:
        raise StageError(
            f"{ctx.step}.judge_model={config.judge_model} is asked at {ctx.step}.endpoint, which "
            f"is empty; set it, or wire steps.{ctx.step}.judge"
        )


def _read_guideline(path: str, ctx: Context) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(
            f"{ctx.step}.guideline={path} cannot be read ({error}); name a text file in UTF-8"
        ) from error


def write_whole(
    cache: AnswerCache, writer: Answerer, orders: Sequence[Order], guideline: str, turns: int
) -> list[Written]:
    """Ask for each dialogue as JSON."""
    requests = [prompts.request_dialogue(guideline, order, turns) for order in orders]
    answers = cache.ask(writer, [order.id for order in orders], requests, "writing")
    return [answer if answer.rule else answer.text for answer in answers]


def write_turn_by_turn(
    cache: AnswerCache, writer: Answerer, orders: Sequence[Order], guideline: str, turns: int
) -> list[Written]:
    """Ask for the questions and answers of each dialogue one after the other.

    The turns of all dialogues are asked for together. A dialogue without an answer is given up.
    """
    dialogues: list[list[dict[str, str]]] = [[] for _ in orders]
    failures: dict[int, Answer] = {}
    speakers = (
        ("user", prompts.request_question, "questions"),
        ("assistant", prompts.request_answer, "answers"),
    )
    for turn in range(1, turns + 1):
        for role, make_request, what in speakers:
            open_numbers = [number for number in range(len(orders)) if number not in failures]
            ids = [orders[number].id for number in open_numbers]
            requests = [
                make_request(guideline, orders[number], dialogues[number])
                for number in open_numbers
            ]
            description = f"{what} {turn} of {turns}" if turns > 1 else what
            answers = cache.ask(writer, ids, requests, description)
            for number, answer in zip(open_numbers, answers, strict=True):
                if answer.rule:
                    failures[number] = answer
                    continue
                text = without_thinking(answer.text)
                dialogues[number].append(message(role, text))
    return [failures.get(number, dialogue) for number, dialogue in enumerate(dialogues)]


def _positioned_rows(orders: Sequence[Order], written: Sequence[Written]) -> list[PositionedRow]:
    """What convert() reads: the position of a row is the id of its order."""
    rows: list[PositionedRow] = []
    for order, text in zip(orders, written, strict=True):
        if isinstance(text, Answer):
            rows.append((order.id, Rejected(order.id, text.reason, text.rule, order.url)))
        else:
            rows.append((order.id, {"said": text, "id": order.id}))
    return rows


def count_fates(examples: Examples, asked: int) -> dict[str, int]:
    """Dialogues by fate: asked = kept + failed + unparsable + duplicates + judged_out."""
    rules = Counter(row["rule"] for row in examples.dropped)
    failed = sum(rules[rule] for rule in FAILED)
    repeated = sum(rules[rule] for rule in screening.REPEATED)
    judged_out = sum(rules[rule] for rule in screening.JUDGED)
    kept = len(examples.kept)
    return {
        "asked": asked,
        "kept": kept,
        "written": kept + repeated + judged_out,
        "failed": failed,
        "unparsable": len(examples.dropped) - failed - repeated - judged_out,
        "duplicates": repeated,
        "judged_out": judged_out,
    }
