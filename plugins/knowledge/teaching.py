"""What is taught about a probed question: its own answer, a refusal, or a search.

Known facts keep the answer that the model gave most often, in its own words, so that nothing new is
taught beside the border of its knowledge. Unknown ones get a refusal, or a row that
tools=search_tokens turns into a call: it names the tool, the argument and the answer that the
result must hold, and brings its passage along as a page.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.text.messages import message
from llmstages.train.trainer import read_meta

KINDS = ("refuse", "search", "answer")
COLUMNS = ("messages", "known", "group")
SEARCH_COLUMNS = ("tool", "argument", "answer", "page")


@dataclass(frozen=True)
class Probed:
    """A question with its sampled answers.

    Attributes:
        row: the problem.
        answers: the sampled texts.
        verdicts: whether each is right.
        agreement: share of the answers that agree with the commonest one.
        commonest: place of that one.
    """

    row: Mapping[str, Any]
    answers: Sequence[str]
    verdicts: Sequence[bool]
    agreement: float
    commonest: int

    @property
    def share(self) -> float:
        """The share of right answers."""
        return sum(self.verdicts) / len(self.verdicts)

    @property
    def group(self) -> str:
        return str(self.row.get("group") or "all")

    def own_answer(self) -> str:
        """The right answer that was given most often; the text itself breaks ties."""
        right = [text for text, ok in zip(self.answers, self.verdicts, strict=True) if ok]
        return max(set(right), key=lambda text: (right.count(text), text))

    def seen(self, fate: str) -> dict[str, Any]:
        """A row of probe.jsonl. fate: known, unknown or between."""
        shown = {
            "question": self.row["prompt"][-1]["content"],
            "answer": self.row["answer"],
            "share": self.share,
            "group": self.group,
            "said": self.answers[0],
            "answers": list(self.answers),
            "verdicts": list(self.verdicts),
            "agreement": self.agreement,
            "commonest": self.answers[self.commonest],
            "commonest_right": self.verdicts[self.commonest],
            "fate": fate,
        }
        kept = {name: self.row.get(name) for name in ("passage", "passage_id", "url", "method")}
        return shown | {name: value for name, value in kept.items() if value}


def dialogue(probed: Probed, answer: str, known: bool) -> dict[str, Any]:
    """A row that answers the question with a text."""
    messages = [*probed.row["prompt"], message("assistant", answer)]
    return {"messages": messages, "known": known, "group": probed.group}


def search(probed: Probed) -> dict[str, Any]:
    """A row whose answer is to be looked up; the query is the name in meta, else the question."""
    query = read_meta(probed.row).get("name") or probed.row["prompt"][-1]["content"]
    return {
        **dialogue(probed, str(probed.row["answer"]), False),
        "tool": "search",
        "argument": " ".join(str(query).split()),
        "answer": str(probed.row["answer"]),
        "page": probed.row.get("passage") or "",
    }


def lessons(
    known: Sequence[Probed],
    unknown: Sequence[Probed],
    teach: Sequence[str],
    wordings: Sequence[str],
    most: int,
    rng: random.Random,
) -> tuple[list[dict[str, Any]], int]:
    """(the dialogues in random order, how many unknown questions are left out).

    Args:
        known, unknown: the questions of either side of the border.
        teach: some of KINDS, and not both of refuse and search.
        wordings: refusals, taken by turns.
        most: unknown questions that are taught at most.
        rng: draws them, and the order.
    """
    rows: list[dict[str, Any]] = []
    if "answer" in teach:
        rows += [dialogue(probed, probed.own_answer(), True) for probed in known]
    taught: list[dict[str, Any]] = []
    if "refuse" in teach:
        for place, probed in enumerate(unknown):
            taught.append(dialogue(probed, wordings[place % len(wordings)], False))
    elif "search" in teach:
        taught = [search(probed) for probed in unknown]
    left_out = 0
    if taught:
        chosen = rng.sample(taught, min(len(taught), most))
        left_out = len(taught) - len(chosen)
        rows += chosen
    rng.shuffle(rows)
    return rows, left_out
