"""evaluate.tuning: what fine-tuning gave and what it cost, the model before beside those after.

Three questions, each with the number of items it was asked of:

held-out dialogues  of the user's own data, kept out of training: the loss of the right answer in
                    nats per token, and how much the model's own answer has in common with it (F1 of
                    words, as for SQuAD, Rajpurkar et al. 2016, section 6.1)
what it knew        general questions that anybody can check. ``kept`` is the share still right of
                    those that the first model had right: 1 means that nothing was lost
other dialogues     of data that was not trained on, if a file is given: the loss of its answers
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option
from llmstages.data.dialogues import Dialogue, before_last_answer
from llmstages.data.intervals import wilson
from llmstages.data.splits import spread
from llmstages.text.messages import Message, message
from llmstages.train.inference import dtype_option

HELD_OUT, GENERAL, OTHERS = "held-out dialogues", "what it knew", "other dialogues"
# Words; each character of a script without spaces is one.
WORDS = re.compile(r"[^\W\u3040-\u30ff\u4e00-\u9fff]+|[\u3040-\u30ff\u4e00-\u9fff]")
QUESTIONS = Path(__file__).parent / "general_questions.jsonl"


@dataclass(frozen=True)
class TuningConfig:
    others: str = option(
        "",
        "file of dialogues of another kind, not trained on: the loss of their answers is measured "
        "too",
        file=True,
    )
    num_dialogues: int = option(40, "held-out dialogues at most, and others at most", ge=1)
    num_questions: int = option(
        110, "general questions at most, spread over their groups; 0 = none", ge=0
    )
    max_new_tokens: int = option(64, "longest answer to a held-out dialogue in tokens", ge=1)
    question_tokens: int = option(
        24, "longest answer to a general question in tokens; the right ones are words", ge=1
    )
    max_length: int = option(2048, "dialogues with more tokens are left out and counted", ge=2)
    batch: int = option(32, "answers generated together at most", ge=1)
    dtype: str = dtype_option()


@dataclass
class Items:
    """What every model is asked.

    Attributes:
        held_out, others: dialogues that end with the right answer.
        questions: (group, question, right answers).
        without_loss: names of dialogues that one of the models cannot hold, so that the loss of all
            models is over the same ones.
    """

    held_out: list[Dialogue] = field(default_factory=list)
    others: list[Dialogue] = field(default_factory=list)
    questions: list[tuple[str, str, list[str]]] = field(default_factory=list)
    without_loss: set[str] = field(default_factory=set)


class Tuning:
    """Before and after fine-tuning, side by side. The first model is the one before."""

    Config = TuningConfig
    smoke: ClassVar[Mapping[str, Any]] = {"num_dialogues": 4, "num_questions": 4}
    inputs: ClassVar[Mapping[str, str]] = {
        "models": "model*",
        "dialogues": "dialogues*?",
    }
    output: ClassVar[str] = "scores"
    version: ClassVar[str] = "3"

    def run(self, config: TuningConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        items = self._items(config, ctx)
        scores: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        answers: list[dict[str, Any]] = []
        known_before: set[str] | None = None
        for artifact in ctx.many("models"):
            model = AskedModel(artifact, config, ctx, items.without_loss)
            for group, metrics in model.held_out(items.held_out, answers):
                scores.setdefault(HELD_OUT, {}).setdefault(group, {})[artifact.name] = metrics
            right = model.general(items.questions, answers)
            if known_before is None:
                known_before = right
            for group, metrics in general_metrics(items.questions, right, known_before):
                scores.setdefault(GENERAL, {}).setdefault(group, {})[artifact.name] = metrics
            for group, metrics in model.others(items.others):
                scores.setdefault(OTHERS, {}).setdefault(group, {})[artifact.name] = metrics
        tables.write_json(ctx.out / "scores.json", scores)
        tables.write_lines(ctx.out / "answers.jsonl", answers)
        return _metrics(scores)

    def _items(self, config: TuningConfig, ctx: Context) -> Items:
        """What is asked. Raises StageError if it is nothing."""
        from llmstages.data import dialogues

        held_out = dialogues.load_test(ctx.many("dialogues"))
        items = Items(
            spread(held_out, config.num_dialogues),
            spread(self._others(config, ctx), config.num_dialogues),
            spread(general_questions(), config.num_questions),
        )
        if not items.held_out and not items.questions and not items.others:
            raise StageError(
                f"{ctx.step}: there is nothing to measure: no dialogue is held out "
                "(dialogues.test_fraction is 0) and num_questions is 0. Set one of them"
            )
        if not items.held_out:
            ctx.say(
                f"{ctx.step}: no dialogue is held out, so only general questions are asked; "
                "dialogues.test_fraction=0.1 holds some out"
            )
        items.without_loss = self._too_long([*items.held_out, *items.others], config, ctx)
        return items

    def _too_long(
        self, dialogues: Sequence[Dialogue], config: TuningConfig, ctx: Context
    ) -> set[str]:
        """Names of the dialogues that are too long for one of the models, by its own template.

        Raises:
            StageError: all are.
        """
        from llmstages.text.render import render_answers
        from llmstages.train.trainer import load_tokenizer

        too_long: set[str] = set()
        for artifact in ctx.many("models"):
            tokenizer = load_tokenizer(artifact.path)
            rows = render_answers(tokenizer, [dialogue.messages for dialogue in dialogues])
            too_long |= {
                dialogue.name
                for dialogue, row in zip(dialogues, rows, strict=True)
                if len(row.ids) > config.max_length
            }
        if too_long and len(too_long) == len(dialogues):
            raise StageError(
                f"{ctx.step}: all {len(dialogues)} dialogues are longer than "
                f"max_length={config.max_length} tokens; raise {ctx.step}.max_length"
            )
        if too_long:
            ctx.say(
                f"{ctx.step}: {len(too_long)} of {len(dialogues)} dialogues left out of the loss "
                f"of all models, longer than max_length={config.max_length} tokens for one of them"
            )
        return too_long

    def _others(self, config: TuningConfig, ctx: Context) -> list[Dialogue]:
        """The dialogues of another kind."""
        from llmstages.data.readers import TABLES, find
        from llmstages.data.readers.examples import convert_dialogues, from_files

        if not config.others:
            return []
        files = find(config.others, ctx.step, TABLES)
        examples = convert_dialogues(from_files(files), "detect", ctx, reasoning="drop")
        if examples.dropped:
            ctx.say(f"{ctx.step}: {len(examples.dropped)} rows of others={config.others} left out")
        name = Path(config.others).stem
        return [
            Dialogue(f"{name}:{number}", example["messages"])
            for number, example in enumerate(examples.kept)
        ]


class AskedModel:
    """One model of the comparison, loaded."""

    def __init__(
        self, artifact: Artifact, config: TuningConfig, ctx: Context, without_loss: set[str]
    ) -> None:
        from llmstages.train.inference import load_for_inference
        from llmstages.train.trainer import load_tokenizer

        self._name = artifact.name
        self._without_loss = without_loss
        self._config = config
        self._ctx = ctx
        self._tokenizer = load_tokenizer(artifact.path)
        self._model = load_for_inference(artifact, ctx, config.dtype).eval()

    def held_out(
        self, dialogues: Sequence[Dialogue], answers: list[dict[str, Any]]
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """The metrics of held-out dialogues; its answers are appended to ``answers``."""
        if not dialogues:
            return
        prompts = [list(before_last_answer(dialogue.messages)) for dialogue in dialogues]
        length = self._config.max_new_tokens
        replies = self._reply(f"{self._name} {HELD_OUT}", prompts, length)
        overlaps = []
        for dialogue, prompt, reply in zip(dialogues, prompts, replies, strict=True):
            wanted = str(dialogue.messages[-1]["content"])
            overlaps.append(overlap(reply.text, wanted))
            row = self._row(HELD_OUT, "all", prompt, wanted, reply.text)
            answers.append({**row, "question": dialogue.name})
        yield (
            "all",
            {
                **self._loss(dialogues),
                "overlap": sum(overlaps) / len(overlaps),
                "ended": sum(reply.ended for reply in replies) / len(replies),
            },
        )

    def general(
        self, questions: Sequence[tuple[str, str, list[str]]], answers: list[dict[str, Any]]
    ) -> set[str]:
        """The general questions that the model answers right."""
        from llmstages.text.grading import is_correct

        prompts = [[message("user", question)] for _, question, _ in questions]
        length = self._config.question_tokens
        replies = self._reply(f"{self._name} {GENERAL}", prompts, length)
        right = set()
        for (group, question, wanted), prompt, reply in zip(
            questions, prompts, replies, strict=True
        ):
            is_right = any(is_correct(reply.text, answer) for answer in wanted)
            if is_right:
                right.add(question)
            row = self._row(GENERAL, group, prompt, " | ".join(wanted), reply.text)
            answers.append({**row, "right": is_right})
        return right

    def others(self, dialogues: Sequence[Dialogue]) -> Iterator[tuple[str, dict[str, float]]]:
        """The loss on dialogues of other data, by source."""
        by_source: dict[str, list[Dialogue]] = {}
        for dialogue in dialogues:
            source = dialogue.name.partition(":")[0]
            by_source.setdefault(source, []).append(dialogue)
        for source, chosen in by_source.items():
            yield source, self._loss(chosen)

    def _reply(
        self, description: str, prompts: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> list[Any]:
        from llmstages.text import generate

        with self._ctx.progress(f"{self._ctx.step} {description}", len(prompts)) as advance:
            return generate.reply(
                self._model,
                self._tokenizer,
                prompts,
                advance=advance,
                max_new_tokens=max_new_tokens,
                batch=self._config.batch,
            )

    def _loss(self, dialogues: Sequence[Dialogue]) -> dict[str, float]:
        """Nats per token of the last answers, and of how many dialogues; {} if of none."""
        from llmstages.plugins.evaluate.likelihood import answer_losses
        from llmstages.text.render import render_answers

        chosen = [
            dialogue.messages for dialogue in dialogues if dialogue.name not in self._without_loss
        ]
        nats, tokens = answer_losses(self._model, render_answers(self._tokenizer, chosen))
        # The mean of nothing would be 0, the best loss there is.
        return {"loss": nats / tokens, "n": len(chosen)} if tokens else {}

    def _row(
        self, task: str, group: str, prompt: Sequence[Message], wanted: str, answer: str
    ) -> dict[str, Any]:
        """A row of answers.jsonl."""
        return {
            "task": task,
            "group": group,
            "model": self._name,
            "prompt": str(prompt[-1]["content"]) if prompt else "",
            "wanted": wanted,
            "answer": answer,
        }


def general_metrics(
    questions: Sequence[tuple[str, str, list[str]]], right: set[str], before: set[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """For each group and for all together: the share right, and the share kept of those before."""
    by_group: dict[str, list[str]] = {"all": []}
    for group, question, _ in questions:
        by_group["all"].append(question)
        by_group.setdefault(group, []).append(question)
    for group, asked in by_group.items():
        if not asked:
            continue
        number_right = len(right.intersection(asked))
        metrics = {"right": number_right / len(asked), "n": float(len(asked))}
        metrics["right_low"], metrics["right_high"] = wilson(number_right, len(asked))
        known = before.intersection(asked)
        if known:
            metrics["kept"] = len(right & known) / len(known)
            metrics["known_before"] = float(len(known))
        yield group, metrics


def general_questions() -> list[tuple[str, str, list[str]]]:
    """(group, question, right answers) of all general questions."""
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    return [(row["group"], row["question"], row["answers"]) for row in rows]


def overlap(answer: str, wanted: str) -> float:
    """F1 of the words that an answer shares with the right one, from 0 to 1; case is ignored."""
    said, expected = Counter(_words(answer)), Counter(_words(wanted))
    shared = (said & expected).total()
    if not shared:
        return 0.0
    precision, recall = shared / said.total(), shared / expected.total()
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    """Words without punctuation; each character of a script without spaces is a word."""
    return WORDS.findall(text.lower())


def _metrics(
    scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
) -> dict[str, float]:
    """TASK/GROUP/MODEL/METRIC -> value, of the groups of all items."""
    metrics: dict[str, float] = {}
    for task, groups in scores.items():
        for group, models in groups.items():
            if task == GENERAL and group != "all":
                continue
            for model, values in models.items():
                for name, value in values.items():
                    metrics[f"{task}/{group}/{model}/{name}"] = value
    return metrics
