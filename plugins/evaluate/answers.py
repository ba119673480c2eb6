"""evaluator answers: ask a model every question and count the replies.

Metrics, each a share of the questions that have it:

right       the answer is there, by the grader of the question (text/grading.py); for running
            text, the continuation begins with it, word for word
undecided   the grader could not decide (a timeout, no verdict of a judge), so it is not right; only
            for tasks where that happened
refused     the reply says that it does not know
wrong       neither right nor refused
ended       the reply ended its turn by itself
cut         the prompt was too long for the context and lost its middle
called      the reply called a tool
query       the call was the right one (of the calls)
sampled     right at temperature 1, for the tasks of ``sampled``
sure_*      the same under a confidence rule: answer only if the least likely token of the answer
            has at least the probability t. t is set per model on the questions of the role
            ``threshold``, which no model was taught and which are not scored, so that
            ``kept_share`` of the right answers there survive. Without such questions t is 0.
page_right  right if the right page is put into the context, whether or not the model would have
            searched for it, for the groups of ``page_groups``

Beside each share are the ends of its 95 % interval (``right_low``, ``right_high``), and beside all
of them ``n`` and ``commonest``: the share of the questions whose answer is the commonest one, which
is what a model that always gives this answer is right in. A question whose meta column has
``constant`` (such as "the first", of two numbers) is counted by this way of answering instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.intervals import wilson
from llmstages.text import chat_format, generate, tool_runs
from llmstages.text.grading import Verdict, accepted, are_right, is_refusal, verdicts
from llmstages.text.messages import Message, message
from llmstages.text.tool_runs import Tools
from llmstages.train.trainer import read_meta

THRESHOLD = "threshold"  # role of the questions that thresholds are set on
# Metrics that are 0 or 1 for each question
SHARES = (
    "right",
    "refused",
    "wrong",
    "undecided",
    "ended",
    "cut",
    "called",
    "query",
    "right_when_called",
    "sampled",
    "sure_right",
    "sure_wrong",
    "page_right",
)
Question = Mapping[str, Any]  # a row of a problems artifact
Marks = dict[str, float]  # metric -> value for one question
Scores = dict[str, dict[str, dict[str, float]]]  # task -> group -> metric


@dataclass(frozen=True)
class AnswersConfig:
    max_new_tokens: int = option(64, "longest reply in tokens", ge=1)
    kept_share: float = option(
        0.85,
        "share of right probe answers that the confidence threshold must keep",
        gt=0,
        le=1,
        renamed_from="keep",
    )
    sampled: list[str] = option(help="tasks that are also asked at temperature 1", factory=list)
    page_groups: dict[str, list[str]] = option(
        help="task -> groups of it that are also asked with the right page put into the context: "
        "what the tool `search` finds for `name` in the meta column",
        factory=dict,
        renamed_from="page",
    )
    max_tool_calls: int = option(
        generate.DEFAULT_CALLS, "calls of one reply at most; 0: no tool is run", ge=0
    )
    max_tool_seconds: float = option(
        0.0, "seconds that all calls of one reply may take; 0 = any number", ge=0
    )
    batch: int = option(
        64,
        "prompts generated together at most, fewer where memory holds no more (sampled answers "
        "depend on it)",
        ge=1,
    )


class Answers:
    """Right, wrong and refused answers, with and without tools."""

    Config = AnswersConfig
    smoke: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 16}
    version = "7"

    def __init__(self, config: AnswersConfig) -> None:
        self.config = config

    def score(
        self,
        model: Any,
        tokenizer: Any,
        questions: Sequence[Question],
        tools: Tools | None,
        advance: Callable[[float], None],
    ) -> tuple[Scores, list[dict[str, Any]], dict[str, float]]:
        """Ask all questions: (scores, answers, facts), as in llmstages.plugin.Evaluator.

        The only fact is ``threshold``, the confidence from which an answer counts as sure.
        """
        options: dict[str, Any] = {
            "max_new_tokens": self.config.max_new_tokens,
            "batch": self.config.batch,
        }
        asking = {
            **options,
            "max_calls": self.config.max_tool_calls,
            "max_tool_seconds": self.config.max_tool_seconds,
        }
        chat = [question for question in questions if question["style"] == "chat"]
        plain = [question for question in questions if question["style"] == "plain"]
        prompts = [question["prompt"] for question in chat]
        replies = generate.reply(model, tokenizer, prompts, tools, advance=advance, **asking)
        marks = self.marks(chat, replies)
        answers = [
            {
                **answer_row(number, question, transcript(reply.messages), bool(mark["right"])),
                "refused": bool(mark["refused"]),
                "role": question["role"],
            }
            for number, (question, reply, mark) in enumerate(
                zip(chat, replies, marks, strict=True), 1
            )
        ]
        threshold = self.threshold(chat, replies, marks)
        for mark, reply in zip(marks, replies, strict=True):
            is_sure = reply.confidence >= threshold or bool(reply.calls)
            mark["sure_right"] = mark["right"] * is_sure
            mark["sure_wrong"] = mark["wrong"] * is_sure
        self.mark_sampled(model, tokenizer, chat, marks, tools, asking)
        if tools and "search" in tools:
            self.mark_with_page(model, tokenizer, chat, marks, tools, asking)
        plain_marks, plain_answers = continue_texts(
            model, tokenizer, plain, {**options, "advance": advance}
        )
        pairs = zip([*chat, *plain], [*marks, *plain_marks], strict=True)
        scored = [(question, mark) for question, mark in pairs if question["role"] != THRESHOLD]
        scores = average([question for question, _ in scored], [mark for _, mark in scored])
        return scores, [*answers, *plain_answers], {"threshold": threshold}

    def marks(
        self, questions: Sequence[Question], replies: Sequence[generate.Reply]
    ) -> list[Marks]:
        """The metrics of each reply."""
        given = verdicts([reply.text for reply in replies], questions)
        marks = [self.mark(*triple) for triple in zip(questions, replies, given, strict=True)]
        undecided = {
            question["task"]
            for question, verdict in zip(questions, given, strict=True)
            if verdict is None
        }
        for question, verdict, mark in zip(questions, given, marks, strict=True):
            if question["task"] in undecided:
                mark["undecided"] = float(verdict is None)
        return marks

    def mark(self, question: Question, reply: generate.Reply, verdict: Verdict) -> Marks:
        """The metrics of one reply."""
        correct = verdict is True
        refused = not correct and is_refusal(reply.text)
        marks = {
            "right": float(correct),
            "refused": float(refused),
            "wrong": float(not correct and not refused),
            "ended": float(reply.ended),
            "called": float(bool(reply.calls)),
            "cut": float(reply.cut),
            "tokens": float(len(reply.text.split())),
        }
        meta = read_meta(question)
        if reply.calls and "name" in meta:
            marks["query"] = float(reply.calls[0]["content"] == meta["name"])
            marks["right_when_called"] = float(correct)
        return marks

    def threshold(
        self,
        questions: Sequence[Question],
        replies: Sequence[generate.Reply],
        marks: Sequence[Marks],
    ) -> float:
        """The confidence that ``kept_share`` of the right answers reach; 0 without any."""
        confidences = sorted(
            reply.confidence
            for question, reply, mark in zip(questions, replies, marks, strict=True)
            if question["role"] == THRESHOLD and mark["right"]
        )
        if not confidences:
            return 0.0
        return confidences[int((1 - self.config.kept_share) * len(confidences))]

    def mark_sampled(
        self,
        model: Any,
        tokenizer: Any,
        questions: Sequence[Question],
        marks: Sequence[Marks],
        tools: Tools | None,
        options: Mapping[str, Any],
    ) -> None:
        """Ask the tasks of ``sampled`` at temperature 1."""
        chosen = [
            number
            for number, question in enumerate(questions)
            if question["task"] in self.config.sampled
        ]
        prompts = [questions[number]["prompt"] for number in chosen]
        replies = generate.reply(model, tokenizer, prompts, tools, temperature=1.0, **options)
        right = are_right([reply.text for reply in replies], [questions[n] for n in chosen])
        for number, is_right in zip(chosen, right, strict=True):
            marks[number]["sampled"] = float(is_right)

    def mark_with_page(
        self,
        model: Any,
        tokenizer: Any,
        questions: Sequence[Question],
        marks: Sequence[Marks],
        tools: Tools,
        options: Mapping[str, Any],
    ) -> None:
        """Ask the groups of ``page_groups`` as if the model had searched for the right page."""
        chosen = [
            number
            for number, question in enumerate(questions)
            if question["group"] in self.config.page_groups.get(question["task"], ())
        ]
        prompts = [with_page(questions[number], tools) for number in chosen]
        replies = generate.reply(model, tokenizer, prompts, tools, **options)
        right = are_right([reply.text for reply in replies], [questions[n] for n in chosen])
        for number, is_right in zip(chosen, right, strict=True):
            marks[number]["page_right"] = float(is_right)


def with_page(question: Question, tools: Tools) -> list[Message]:
    """The prompt of a question, a search for its name, and the page that was found.

    Raises:
        StageError: the meta column does not name what to search for.
    """
    name = read_meta(question).get("name")
    if not name:
        raise StageError(
            f"page_groups lists {question['group']!r} of {question['task']!r}, but the meta column "
            f"of the question {question['prompt'][-1]['content']!r} has no `name` to search for"
        )
    page = tool_runs.call_tool(tools, "search", name)
    return [
        *question["prompt"],
        message("assistant", name, "search"),
        message("tool", page, "search"),
    ]


def continue_texts(
    model: Any, tokenizer: Any, questions: Sequence[Question], options: Mapping[str, Any]
) -> tuple[list[Marks], list[dict[str, Any]]]:
    """Let a model continue running text: (marks, answers), one of each per question.

    A continuation is right if it begins with the answer, word for word.

    Args:
        model, tokenizer: of transformers.
        questions: the text is the first message of the prompt.
        options: keyword arguments of generate.generate.
    """
    if not questions:
        return [], []
    texts = [question["prompt"][0]["content"] for question in questions]
    prompts = chat_format.document_ids(tokenizer, texts)
    continuations, _ = generate.generate(model, tokenizer, prompts, **options)
    marks: list[Marks] = []
    answers = []
    for number, (question, ids) in enumerate(zip(questions, continuations, strict=True), 1):
        text = chat_format.decode(tokenizer, ids).strip()
        following = text[len(question["answer"]) :][:1]
        is_exact = text.startswith(question["answer"]) and not following.isalnum()
        marks.append({"right": float(is_exact)})
        answers.append(answer_row(number, question, text, is_exact))
    return marks, answers


def answer_row(number: int, question: Question, answer: str, right: bool) -> dict[str, Any]:
    """A row of answers.jsonl.

    The number of the question tells questions apart whose last turns are the same.
    """
    return {
        "task": question["task"],
        "group": question["group"],
        "question": number,
        "prompt": question["prompt"][-1]["content"],
        "wanted": " | ".join(accepted(question)),
        "answer": answer,
        "right": right,
    }


def transcript(messages: Sequence[Message]) -> str:
    """The text of messages, with tool calls and results in brackets."""
    parts = []
    for turn in messages:
        if turn["role"] == "assistant" and turn["tool"]:
            parts.append(f"[{turn['tool']}: {turn['content']}]")
        elif turn["role"] == "tool":
            parts.append(f"[result: {turn['content']}]")
        else:
            parts.append(str(turn["content"]))
    return " ".join(parts)


def average(questions: Sequence[Question], marks: Sequence[Marks]) -> Scores:
    """The mean of each metric by task and group, over the questions that have it.

    Each share has its interval (``NAME_low``, ``NAME_high``, see intervals.py). ``n`` is the number
    of questions with the metric ``right``, ``commonest`` the share of their commonest answer (or
    constant way of answering).
    """
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    wanted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for question, mark in zip(questions, marks, strict=True):
        task, group = question["task"], question["group"]
        wanted[task, group][str(read_meta(question).get("constant", question["answer"]))] += 1
        for metric, value in mark.items():
            values[task, group, metric].append(value)
    scores: Scores = {}
    intervals: Scores = {}
    for (task, group, metric), numbers in values.items():
        metrics = scores.setdefault(task, {}).setdefault(group, {})
        metrics[metric] = sum(numbers) / len(numbers)
        if metric in SHARES:
            low, high = wilson(sum(numbers), len(numbers))
            ends = intervals.setdefault(task, {}).setdefault(group, {})
            ends |= {f"{metric}_low": low, f"{metric}_high": high}
        if metric == "right":
            answers = wanted[task, group]
            metrics["n"] = len(numbers)
            metrics["commonest"] = max(answers.values()) / answers.total()
    # Behind the shares themselves, of which the first are shown with the step.
    for task, groups in intervals.items():
        for group, ends in groups.items():
            scores[task][group] |= ends
    return scores
