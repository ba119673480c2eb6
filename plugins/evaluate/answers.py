"""task answers: ask every model every question and count what comes back.

right      the answer is there (verdict.py); for running text, the continuation begins with it, word for word
ended      the reply ended its turn by itself;  refused  it said it does not know;  wrong  neither right nor refused
cut        the prompt was too long for the context and lost its middle
called     it called a tool;  query  the call was the right one (share of calls)
sampled    right at temperature 1, for the tasks named
sure_*     the same under a confidence rule: answer only if the least likely token of the answer has at least the
           probability t. t is set per model on the *probe* questions, about people who are in no other set, so that
           ``kept_share`` of the right answers there survive; the test questions never see it being chosen.
page_right right when the right page is forced into the context, whether or not the model would have searched
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import option
from llmstages.text import chat_format, generate
from llmstages.text.grading import right
from llmstages.text.messages import message
from llmstages.train.trainer import read_meta

REFUSALS = ("do not know", "don't know", "not sure", "cannot answer")
Scores = dict[str, dict[str, dict[str, float]]]  # task -> group -> metric


@dataclass(frozen=True)
class AnswersConfig:
    max_new_tokens: int = option(64, "longest reply in tokens")
    kept_share: float = option(
        0.85,
        "share of right probe answers that the confidence threshold must keep",
        renamed_from="keep",
    )
    sampled: list[str] = option(
        help="tasks that are also asked at temperature 1", factory=lambda: ["sums open"]
    )
    page: list[str] = option(
        help="groups of facts that are also asked with the right page forced in",
        factory=lambda: ["unseen"],
    )
    batch: int = option(64, "prompts generated together (sampled answers depend on it)")


class Answers:
    """Questions and answers."""

    Config = AnswersConfig
    smoke: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 16}
    version = "1"

    def __init__(self, config: AnswersConfig) -> None:
        self.config = config

    def score(
        self,
        model: Any,
        tokenizer: Any,
        questions: Sequence[Mapping[str, Any]],
        tools: generate.Tools | None,
        advance: Callable[[float], None],
    ) -> tuple[Scores, list[dict[str, Any]], dict[str, float]]:
        """(scores, what was answered, facts about the model such as its threshold)."""
        how = {
            "max_new_tokens": self.config.max_new_tokens,
            "batch": self.config.batch,
            "advance": advance,
        }
        asked = [q for q in questions if q["style"] == "chat"]
        plain = [q for q in questions if q["style"] == "plain"]
        replies = generate.reply(model, tokenizer, [q["prompt"] for q in asked], tools, **how)
        marks = [self.mark(q, r) for q, r in zip(asked, replies, strict=True)]
        answers = [
            {
                "task": q["task"],
                "group": q["group"],
                "prompt": q["prompt"][0]["content"],
                "wanted": q["answer"],
                "answer": written(r.messages),
            }
            for q, r in zip(asked, replies, strict=True)
        ]
        limit = self.threshold(asked, replies, marks)
        for one, said in zip(marks, replies, strict=True):
            sure = said.confidence >= limit or bool(said.calls)
            one |= {"sure_right": one["right"] * sure, "sure_wrong": one["wrong"] * sure}
        self.more(model, tokenizer, asked, marks, tools, {**how, "advance": None})
        found, said = continued(model, tokenizer, plain, how)
        marks, answers = [*marks, *found], [*answers, *said]
        return average([*asked, *plain], marks), answers, {"threshold": limit}

    def mark(self, q: Mapping[str, Any], reply: generate.Reply) -> dict[str, float]:
        """Metrics of one reply."""
        correct = right(reply.text, q["answer"])
        refused = not correct and any(phrase in reply.text.lower() for phrase in REFUSALS)
        one = {
            "right": float(correct),
            "refused": float(refused),
            "wrong": float(not correct and not refused),
            "ended": float(reply.ended),
            "called": float(bool(reply.calls)),
            "cut": float(reply.cut),
            "tokens": float(len(reply.text.split())),
        }
        if reply.calls and "name" in (meta := read_meta(q)):
            one["query"] = float(reply.calls[0]["content"] == meta["name"])
            one["right_when_called"] = float(correct)
        return one

    def threshold(
        self,
        asked: Sequence[Mapping[str, Any]],
        replies: Sequence[generate.Reply],
        marks: Sequence[Mapping[str, float]],
    ) -> float:
        """The confidence that ``kept_share`` of the right probe answers reach; 0 where there are none."""
        sure = sorted(
            r.confidence
            for q, r, m in zip(asked, replies, marks, strict=True)
            if q["role"] == "probe" and m["right"]
        )
        return sure[int((1 - self.config.kept_share) * len(sure))] if sure else 0.0

    def more(
        self,
        model: Any,
        tokenizer: Any,
        asked: Sequence[Mapping[str, Any]],
        marks: list[dict[str, float]],
        tools: Any,
        how: dict[str, Any],
    ) -> None:
        """Sampled answers, and answers with the page forced in."""
        chosen = [i for i, q in enumerate(asked) if q["task"] in self.config.sampled]
        for i, r in zip(
            chosen,
            generate.reply(
                model,
                tokenizer,
                [asked[i]["prompt"] for i in chosen],
                tools,
                temperature=1.0,
                **how,
            ),
            strict=True,
        ):
            marks[i]["sampled"] = float(right(r.text, asked[i]["answer"]))
        if not tools or "search" not in tools:
            return
        chosen = [
            i
            for i, q in enumerate(asked)
            if q["task"] == "facts" and q["group"] in self.config.page
        ]
        forced = []
        for i in chosen:
            name = read_meta(asked[i])["name"]
            forced.append(
                [
                    *asked[i]["prompt"],
                    message("assistant", name, "search"),
                    message("tool", generate.call(tools, "search", name), "search"),
                ]
            )
        for i, r in zip(
            chosen, generate.reply(model, tokenizer, forced, tools, **how), strict=True
        ):
            marks[i]["page_right"] = float(right(r.text, asked[i]["answer"]))


def continued(
    model: Any, tokenizer: Any, questions: Sequence[Mapping[str, Any]], how: dict[str, Any]
) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """Let a model go on with running text: (marks, what was said) of each question. Right: it goes on with the answer, word for word."""
    if not questions:
        return [], []
    made, _ = generate.generate(
        model,
        tokenizer,
        chat_format.document_ids(tokenizer, [q["prompt"][0]["content"] for q in questions]),
        **how,
    )
    marks, answers = [], []
    for q, ids in zip(questions, made, strict=True):
        text = chat_format.decode(tokenizer, ids).strip()
        exact = text.startswith(q["answer"]) and not text[len(q["answer"]) :][:1].isalnum()
        marks.append({"right": float(exact)})
        answers.append(
            {
                "task": q["task"],
                "group": q["group"],
                "prompt": q["prompt"][0]["content"],
                "wanted": q["answer"],
                "answer": text,
            }
        )
    return marks, answers


def written(messages: Sequence[Mapping[str, Any]]) -> str:
    """What was said, with calls and results visible."""
    return " ".join(
        f"[{m['tool']}: {m['content']}]"
        if m["role"] == "assistant" and m["tool"]
        else f"[result: {m['content']}]"
        if m["role"] == "tool"
        else str(m["content"])
        for m in messages
    )


def average(questions: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, float]]) -> Scores:
    """Means by task and group, over the questions that carry the metric; n is their number."""
    sums: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for q, one in zip(questions, marks, strict=True):
        for metric, value in one.items():
            sums[q["task"], q["group"], metric].append(value)
    out: Scores = {}
    for (task, group, metric), values in sums.items():
        slot = out.setdefault(task, {}).setdefault(group, {})
        slot[metric] = sum(values) / len(values)
        if metric == "right":
            slot["n"] = len(values)
    return out
