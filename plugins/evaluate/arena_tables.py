"""What an arena's judgments say: ranking, wins by pair, biases, agreement, and rows to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmstages.data import bradley_terry
from llmstages.data.bradley_terry import Comparison
from llmstages.data.intervals import wilson_of_clusters
from llmstages.plugins.evaluate.arena_answers import Answered
from llmstages.plugins.evaluate.arena_judges import (
    FIRST,
    SECOND,
    TIE,
    Judgment,
    Match,
    Questions,
    Score,
)
from llmstages.text.grading import accepted
from llmstages.text.messages import message

RESULTS = {1.0: FIRST, 0.5: TIE, 0.0: SECOND, None: "undecided"}
Ranking = list[dict[str, Any]]  # a row for each model, the strongest first


def ranking(
    matches: Sequence[Match],
    judgments: Sequence[Judgment],
    models: Sequence[str],
    *,
    draws: int,
    seed: int,
) -> Ranking:
    """The models with rating and interval on Elo's scale, points, and what the points are from.

    Raises:
        StageError: models that no chain of decided comparisons joins.
    """
    comparisons = [
        Comparison(match.question, match.first, match.second, judgment.result)
        for match, judgment in zip(matches, judgments, strict=True)
        if judgment.result is not None
    ]
    results: dict[str, list[float]] = {model: [] for model in models}
    for _, first, second, result in comparisons:
        results[first].append(result)
        results[second].append(1 - result)
    rows = []
    for rating in bradley_terry.rate(comparisons, models, draws=draws, seed=seed):
        points = results[rating.name]
        rows.append(
            {
                "model": rating.name,
                "rank": rating.rank,
                "rating": bradley_terry.elo(rating.strength),
                "rating_low": bradley_terry.elo(rating.low),
                "rating_high": bradley_terry.elo(rating.high),
                "points": sum(points) / len(points),
                "won": points.count(1.0),
                "tied": points.count(0.5),
                "lost": points.count(0.0),
                "n": len(points),
            }
        )
    return rows


def wins_table(
    matches: Sequence[Match], judgments: Sequence[Judgment]
) -> dict[str, dict[str, dict[str, int]]]:
    """Model -> opponent -> ``won``, ``tied``, ``lost``: how often against that opponent."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for match, judgment in zip(matches, judgments, strict=True):
        if judgment.result is None:
            continue
        sides = (
            (match.first, match.second, judgment.result),
            (match.second, match.first, 1 - judgment.result),
        )
        for model, opponent, result in sides:
            counts = table.setdefault(model, {}).setdefault(
                opponent, {"won": 0, "tied": 0, "lost": 0}
            )
            counts[{1.0: "won", 0.5: "tied", 0.0: "lost"}[result]] += 1
    return table


def position_bias(matches: Sequence[Match], judgments: Sequence[Judgment]) -> dict[str, float]:
    """How a judge that reads both answers is swayed by their order; {} for one that scores.

    ``first``: the share of its preferences that are for the answer in front, which is 0.5 without
    bias since each pair is shown in both orders. ``inconsistent``: the share of pairs, among those
    with a preference in each order, where both are for the same place. ``unreadable``: the share
    of replies without a verdict.
    """
    first, inconsistent, unreadable = Share("first"), Share("inconsistent"), Share("unreadable")
    for match, judgment in zip(matches, judgments, strict=True):
        for verdict in judgment.asked:
            unreadable.add(match.question, verdict is None)
            if verdict in (FIRST, SECOND):
                first.add(match.question, verdict == FIRST)
        if judgment.asked and set(judgment.asked) <= {FIRST, SECOND}:
            inconsistent.add(match.question, len(set(judgment.asked)) == 1)
    return {**first.values(), **inconsistent.values(), **unreadable.values()}


def length_bias(
    matches: Sequence[Match], judgments: Sequence[Judgment], gold: Sequence[Judgment] | None
) -> dict[str, float]:
    """How often the longer answer (in characters) wins, of comparisons that are decided.

    ``longer``: of all of them; longer answers may well be better. ``longer_gold_ties``: of those
    where gold sees no difference, which is bias.
    """
    longer, gold_ties = Share("longer"), Share("longer_gold_ties")
    for place, (match, judgment) in enumerate(zip(matches, judgments, strict=True)):
        first, second = map(len, match.answers)
        if first == second or judgment.result in (None, 0.5):
            continue
        longer_won = (judgment.result == 1.0) == (first > second)
        longer.add(match.question, longer_won)
        if gold and gold[place].result == 0.5:
            gold_ties.add(match.question, longer_won)
    return {**longer.values(), **gold_ties.values()}


def agreement(
    matches: Sequence[Match],
    judgments: Sequence[Judgment],
    gold: Sequence[Judgment],
    ranked: Ranking,
    gold_ranked: Ranking,
) -> dict[str, float]:
    """How far the judge agrees with gold.

    ``same``: the share of comparisons with the same winner, of those that both decide.
    ``kendall_tau``: of the two rankings; absent where all models of one are equal.
    """
    same = Share("same")
    for match, judgment, other in zip(matches, judgments, gold, strict=True):
        if judgment.result in (0.0, 1.0) and other.result in (0.0, 1.0):
            same.add(match.question, judgment.result == other.result)
    tau = bradley_terry.kendall_tau(ratings(ranked), ratings(gold_ranked))
    found = {} if tau is None else {"kendall_tau": tau}
    return {**found, **same.values()}


class Share:
    """A share of comparisons. Its interval knows that those of one question depend on each other.

    Args:
        name: of the metric.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._by_question: dict[int, list[bool]] = {}

    def add(self, question: int, success: bool) -> None:
        """Count a trial."""
        self._by_question.setdefault(question, []).append(success)

    def values(self) -> dict[str, float]:
        """The share, the ends of its interval, and the number of trials; {} without any."""
        clusters = [(sum(trials), len(trials)) for trials in self._by_question.values()]
        number = sum(trials for _, trials in clusters)
        if not number:
            return {}
        low, high = wilson_of_clusters(clusters)
        return {
            self.name: sum(successes for successes, _ in clusters) / number,
            f"{self.name}_low": low,
            f"{self.name}_high": high,
            f"{self.name}_n": number,
        }


def ratings(ranked: Ranking) -> dict[str, float]:
    """Model -> rating."""
    return {row["model"]: row["rating"] for row in ranked}


def answer_rows(
    questions: Questions,
    answered: Mapping[str, Sequence[Answered]],
    scores: Mapping[str, Sequence[Score]],
    right: Mapping[str, Sequence[Score]],
) -> Iterable[dict[str, Any]]:
    """The rows of answers.jsonl.

    Args:
        scores: model -> scores of the judge; empty where it scores nothing.
        right: model -> verdicts of the grader; empty where it was not asked.
    """
    for model, rows in answered.items():
        for place, (question, row) in enumerate(zip(questions, rows, strict=True)):
            judged: dict[str, Any] = {}
            if model in scores:
                judged["score"] = scores[model][place]
            if model in right:
                judged["right"] = right[model][place] == 1
            yield {
                "model": model,
                **_about(questions, place),
                "wanted": " | ".join(accepted(question)),
                "answer": row.transcript,
                **judged,
            }


def comparison_rows(
    questions: Questions,
    matches: Sequence[Match],
    judgments: Sequence[Judgment],
    gold: Sequence[Judgment] | None,
) -> Iterable[dict[str, Any]]:
    """The rows of comparisons.jsonl: every comparison with both answers, for people to read."""
    for place, (match, judgment) in enumerate(zip(matches, judgments, strict=True)):
        row = {
            **_about(questions, match.question),
            "first": match.first,
            "second": match.second,
            "first_answer": match.answers[0],
            "second_answer": match.answers[1],
            "result": RESULTS[judgment.result],
        }
        if judgment.scores:
            row["scores"] = judgment.scores
        if judgment.asked:
            row["preferred_place"] = judgment.asked
        if gold:
            row["gold"] = RESULTS[gold[place].result]
        yield row


def preference_rows(
    questions: Questions, matches: Sequence[Match], judgments: Sequence[Judgment]
) -> Iterable[dict[str, Any]]:
    """Decided comparisons as rows of preferences: prompt, chosen, rejected."""
    for match, judgment in zip(matches, judgments, strict=True):
        if judgment.result not in (0.0, 1.0) or not all(map(str.strip, match.answers)):
            continue
        chosen, rejected = match.answers
        if judgment.result == 0.0:
            chosen, rejected = rejected, chosen
        yield {
            "prompt": questions[match.question]["prompt"],
            "chosen": [message("assistant", chosen)],
            "rejected": [message("assistant", rejected)],
        }


def _about(questions: Questions, place: int) -> dict[str, Any]:
    question = questions[place]
    return {
        "task": question["task"],
        "group": question["group"],
        "question": place + 1,
        "prompt": question["prompt"][-1]["content"],
    }
