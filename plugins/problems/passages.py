"""problems.passages: questions with short answers about passages of a corpus.

What Llama 3 (Dubey et al. 2024, section 4.3.6) begins with to find out what a model knows: passages
are drawn from its corpus, and each becomes a question that can be answered without the passage.
Without a writer the question is a sentence with a word left out (cloze.py). A writer, which is a
model of the run or behind an OpenAI-compatible address, writes question and answer, and they are
kept only if it finds the answer again with the passage before it (written.py).

Every passage has one role, so what is taught says nothing about the passages of the test: ``probe``
(knowledge=probe asks and teaches these), ``threshold`` and ``test``. What was refused is counted by
its reason and saved in ``dropped/``. Left out on purpose: whether two passages tell the same fact.
"""

from __future__ import annotations

import dataclasses as dc
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.answer_cache import Answerer
from llmstages.data.endpoint import EndpointOptions
from llmstages.data.splits import comparable
from llmstages.plugins.problems import cloze, written
from llmstages.plugins.problems.questions import TASKS, Outcome, Passage, row_of

UNSPACED = 0.2  # share of characters of scripts without blanks from which no rule can blank a word


@dc.dataclass(frozen=True)
class PassagesConfig(EndpointOptions):
    seed: int = option(0, "seed of the choice of passages, of their roles and of the questions")
    num_passages: int = option(1000, "passages drawn from the corpus at most; 0: all", ge=0)
    passage_words: int = option(
        80, "words of a passage at least; it is of whole sentences of one document", ge=8
    )
    threshold_fraction: float = option(
        0.1, "share of the passages to set thresholds on (role = threshold)", ge=0, le=1
    )
    test_fraction: float = option(
        0.3, "share of the passages kept for evaluation (role = test)", ge=0, le=1
    )
    kinds: list[str] = option(
        help="without a writer: what is left out of a sentence (name, year, number, word)",
        factory=lambda: list(cloze.KINDS),
    )
    wording: str = option(
        "Which {kind} is missing? Answer with the missing {kind} alone.\n\n{sentence}",
        "without a writer: the question; {sentence} is the sentence with its blank, {kind} what "
        "is left out, {question} an English sentence that asks itself (`was born in which year?`), "
        "which small models understand better than a blank",
    )
    model: str = option(
        "", "name of the writer at the endpoint; unused where a step is wired as writer"
    )
    temperature: float = option(0.7, "temperature of the writer; it answers at 0", ge=0)
    max_new_tokens: int = option(96, "longest text of the writer in tokens", ge=1)
    batch: int = option(
        16, "requests that a model step answers at once; the samples depend on it", ge=1
    )

    def __post_init__(self) -> None:
        if self.threshold_fraction + self.test_fraction >= 1:
            raise ValueError(
                "threshold_fraction and test_fraction leave no passage to probe with; together "
                "they must be below 1"
            )
        unknown = [kind for kind in self.kinds if kind not in cloze.KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kinds must be some of {', '.join(cloze.KINDS)}, not {self.kinds}")
        if "{sentence}" not in self.wording and "{question}" not in self.wording:
            raise ValueError(
                "wording must have {sentence}, the sentence with its blank, or {question}"
            )
        super().__post_init__()


class Passages:
    """Questions about passages of a corpus, by rules or by a writer."""

    Config = PassagesConfig
    smoke: ClassVar[Mapping[str, Any]] = {"passage_words": 8, "threshold_fraction": 0.0}
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus|documents", "writer": "model?"}
    output: ClassVar[str] = "problems"
    version: ClassVar[str] = "1"

    def estimate(self, config: PassagesConfig, known: Mapping[str, Any]) -> Mapping[str, float]:
        """At most one question for each passage."""
        if not config.num_passages:
            return {}
        tests = round(config.num_passages * config.test_fraction)
        return {"examples": config.num_passages, "test": tests}

    def run(self, config: PassagesConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        artifact = ctx.maybe("writer")
        if config.model and not artifact and not config.endpoint:
            raise StageError(
                f"{ctx.step}.model={config.model} is asked at {ctx.step}.endpoint, which is empty; "
                f"set it, or wire a model: steps.{ctx.step}.writer=STEP"
            )
        passages = draw_passages(config, ctx)
        if artifact or config.model:
            outcome = written.write_questions(
                ctx,
                passages,
                lambda: self.answerer(config, ctx, config.temperature),
                lambda writer: self.answerer(config, ctx, 0.0, writer),
            )
        else:
            outcome = blank_words(config, ctx, passages)
        if not outcome.rows:
            raise StageError(
                f"{ctx.step}: no question could be made of {len(passages)} passages; the reasons "
                f"are above. Give it more text, or a writer: steps.{ctx.step}.writer=STEP"
            )
        tables.save(outcome.rows, ctx.out / "data")
        tables.save(outcome.dropped, ctx.out / "dropped", tables.DROPPED_COLUMNS)
        roles = Counter(row["role"] for row in outcome.rows)
        kinds = Counter(row["group"] for row in outcome.rows)
        ctx.say(
            f"{ctx.step}: {len(outcome.rows)} questions about {len(passages)} passages: "
            + ", ".join(f"{count} {role}" for role, count in sorted(roles.items()))
        )
        return {
            "examples": len(outcome.rows),
            "passages": len(passages),
            "dropped": len(outcome.dropped),
            **{role: roles[role] for role in TASKS},
            "groups": len({(row["task"], row["group"]) for row in outcome.rows}),
            **{f"questions/{kind}": count for kind, count in sorted(kinds.items())},
            **{f"refused/{reason}": count for reason, count in sorted(outcome.refused.items())},
        }

    def answerer(
        self,
        config: PassagesConfig,
        ctx: Context,
        temperature: float,
        before: Answerer | None = None,
    ) -> Answerer:
        """The wired model, else the one at the endpoint.

        before: the same model with another temperature, whose weights are used again.
        """
        settings: dict[str, Any] = {"temperature": temperature, "max_tokens": config.max_new_tokens}
        artifact = ctx.maybe("writer")
        if artifact:
            from llmstages.train.model_step import ModelStep

            settings["seed"] = config.seed
            if isinstance(before, ModelStep):
                before.settings = settings
                return before
            return ModelStep(artifact, ctx, settings, config.batch)
        return config.service(ctx.step, config.model, settings)


def draw_passages(config: PassagesConfig, ctx: Context) -> list[Passage]:
    """Passages drawn by the seed, each with its role.

    Equal passages are taken once, also where they differ in case and blanks alone.

    Raises:
        StageError: the corpus has no text.
    """
    source = ctx.one("corpus")
    found: dict[str, Passage] = {}
    repeated = 0
    for passage in _all_passages(config, ctx):
        key = comparable(passage.text)
        repeated += key in found
        found.setdefault(key, passage)
    if repeated:
        ctx.say(f"{ctx.step}: {repeated} passages left out that stand in {source.name} before")
    if not found:
        raise StageError(
            f"{ctx.step}: {source.name} holds no passage of {config.passage_words} words; lower "
            f"{ctx.step}.passage_words, or wire a corpus with texts: steps.{ctx.step}.corpus=STEP"
        )
    passages = list(found.values())
    rng = random.Random(config.seed)
    rng.shuffle(passages)
    if config.num_passages:
        passages = passages[: config.num_passages]
    tests = round(config.test_fraction * len(passages))
    thresholds = round(config.threshold_fraction * len(passages))
    roles = ["test"] * tests + ["threshold"] * thresholds
    roles += ["probe"] * (len(passages) - len(roles))
    return [dc.replace(passage, role=role) for passage, role in zip(passages, roles, strict=True)]


def _all_passages(config: PassagesConfig, ctx: Context) -> Iterator[Passage]:
    """Every passage of every document with text; documents passed over are counted."""
    from llmstages.data import tables

    table = tables.load(ctx.one("corpus").path / "data")
    passed_over: Counter[str] = Counter()
    for place, row in enumerate(table):
        if row.get("media", "text/plain") != "text/plain":
            passed_over["HTML (wire a corpus step, which extracts the text)"] += 1
            continue
        text = row["text"] if "text" in row else row["body"].decode("utf-8", "replace")
        name, url = str(row.get("id") or place), str(row.get("url") or "")
        parts = cut(text, config.passage_words)
        if not parts:
            passed_over[f"fewer than {config.passage_words} words"] += 1
        for number, part in enumerate(parts, 1):
            yield Passage(f"{name}#{number}", name, url, part)
    for reason, count in passed_over.items():
        ctx.say(f"{ctx.step}: {count} of {len(table)} documents passed over: {reason}")


def cut(text: str, words: int) -> list[str]:
    """A text in passages of whole sentences with so many words; a shorter rest joins the last one.

    A script without blanks has one word for each five characters here.
    """
    passages: list[list[str]] = []
    waiting: list[str] = []
    count = 0
    for sentence in cloze.sentences(text):
        waiting.append(sentence)
        count += max(len(sentence.split()), cloze.unspaced_characters(sentence) // 5)
        if count >= words:
            passages.append(waiting)
            waiting, count = [], 0
    if passages:
        passages[-1] += waiting
    return [" ".join(passage) for passage in passages]


def blank_words(config: PassagesConfig, ctx: Context, passages: Sequence[Passage]) -> Outcome:
    """One question for each passage whose rules allow one, its kind drawn by the seed."""
    rng = random.Random(config.seed)
    counts = cloze.passage_counts(passage.text for passage in passages)
    outcome = Outcome()
    for passage in passages:
        if cloze.unspaced_characters(passage.text) >= UNSPACED * len(passage.text):
            outcome.drop(passage, "script without blanks")
            continue
        found = list(cloze.candidates(passage.text, counts, config.kinds, outcome.refused))
        if not found:
            outcome.drop(passage, "no sentence to ask about")
            continue
        kind = rng.choice(list(dict.fromkeys(candidate.kind for candidate in found)))
        chosen = rng.choice([candidate for candidate in found if candidate.kind == kind])
        question = chosen.question(config.wording)
        outcome.rows.append(row_of(passage, question, chosen.answer, chosen.kind, "cloze"))
    outcome.report(ctx)
    return outcome
