"""evaluate.arena: models answer the same questions, a judge compares pairs of answers, all ranked.

Each model answers each question once. The answers are compared in pairs by ``judge`` (see
arena_judges.py), and the ranking is that of Bradley and Terry with intervals by a bootstrap over
questions (data/bradley_terry.py). Measured beside it: how the judge is swayed by the order and the
length of answers; with ``gold``, a second judge that is trusted more, how far the two agree; with
``reference``, an earlier evaluation, how far the ranking agrees with that known order.

``arena.json`` has ranking, wins by pair and biases, which the report shows; comparisons.jsonl every
comparison with both answers, for reading; preferences.jsonl the decided ones as
``preferences=files`` reads them.

Left out on purpose: choosing the next pair by what is least certain, since all pairs of a few
models are cheap; votes of people, which the studio ranks with the same statistics.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import bradley_terry
from llmstages.data.answer_cache import Answerer
from llmstages.plugins.evaluate import arena_judges, arena_tables
from llmstages.plugins.evaluate.arena_answers import Answered, GenerationSettings, answer
from llmstages.plugins.evaluate.arena_judges import Judgment, Match, Score
from llmstages.plugins.evaluate.arena_options import (
    READERS,
    ArenaConfig,
    check_values,
    require_inputs,
    wiring_problem,
)
from llmstages.plugins.evaluate.arena_reference import read_reference
from llmstages.plugins.evaluate.results import draw, load_questions

TASK = "arena"  # in scores.json; its groups are the judges
PER_MODEL = ("rating", "rating_low", "rating_high", "rank", "points", "n")
Scores = Mapping[str, Sequence[Score]]  # model -> score of each answer


class Arena:
    """Models ranked by comparisons of their answers."""

    Config = ArenaConfig
    smoke: ClassVar[Mapping[str, Any]] = {"limit": 2, "max_new_tokens": 8, "bootstrap": 100}
    inputs: ClassVar[Mapping[str, str]] = {
        "models": "model*",
        "questions": "problems",
        "tools": "dialogues?",
        "reward_model": "reward_model?",
        "judge_model": "model?",
        "reference": "scores?",
    }
    output: ClassVar[str] = "scores"
    version: ClassVar[str] = "1"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"rewards": ()}

    def validate(self, config: ArenaConfig, step: str) -> None:
        """Refuse a judge that nothing says how to ask."""
        check_values(config, step)

    def estimate(
        self, config: ArenaConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of all answers at their full length; the number of comparisons."""
        from llmstages.cost.generation import Generation, models_of, row_count

        problem = wiring_problem(config, known)
        if problem:
            return {"no_estimate": problem}
        models = models_of(known["models"])
        if isinstance(models, str):
            return {"no_estimate": models}
        source = known["questions"][0]
        number = source.get("test") or row_count(source)
        if number is None:
            return {"no_estimate": f"questions are known once {source['name']} is made"}
        if config.limit and source.get("groups"):
            number = min(number, config.limit * source["groups"])
        pairs = len(models) * (len(models) - 1) // 2
        if config.pairs_per_prompt:
            pairs = min(pairs, config.pairs_per_prompt)
        generation = Generation(
            models,
            number,
            config.max_new_tokens,
            config.batch,
            because=f"{number:,.0f} questions, {len(models)} models, {number * pairs:,.0f} "
            f"comparisons by {config.judge}",
        )
        return {"questions": number, "comparisons": number * pairs, "generation": generation}

    def run(self, config: ArenaConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        require_inputs(config, ctx)
        artifacts = ctx.many("models")
        models = [artifact.name for artifact in artifacts]
        questions = chosen_questions(config, ctx)
        answered = {
            artifact.name: _answers(artifact, questions, config, ctx) for artifact in artifacts
        }
        texts = {model: [row.text for row in rows] for model, rows in answered.items()}
        matches = pair_up(texts, config)
        judgments, scores = judge(config.judge, matches, questions, texts, config, ctx)
        gold, gold_scores = None, {}
        if config.gold != "none":
            gold, gold_scores = judge(config.gold, matches, questions, texts, config, ctx)
        found, measured = _measure(config, ctx, models, matches, judgments, gold)
        metrics = {"questions": len(questions), **measured}
        metrics |= self.compare_with_reference(config, ctx, questions, found)

        tables.write_json(ctx.out / "arena.json", found)
        groups = {f"by {config.judge}": per_model(found["ranking"])}
        if gold:
            groups[f"by {config.gold}"] = per_model(found["gold"]["ranking"])
        tables.write_json(ctx.out / "scores.json", {TASK: groups})
        right = scores if config.judge == "grader" else {}
        right = gold_scores if config.gold == "grader" else right
        rows = arena_tables.answer_rows(questions, answered, scores, right)
        tables.write_lines(ctx.out / "answers.jsonl", rows)
        compared = arena_tables.comparison_rows(questions, matches, judgments, gold)
        tables.write_lines(ctx.out / "comparisons.jsonl", compared)
        pairs = arena_tables.preference_rows(questions, matches, judgments)
        tables.write_lines(ctx.out / "preferences.jsonl", pairs)
        for group, by_model in groups.items():
            for model, values in by_model.items():
                metrics |= {f"{TASK}/{group}/{model}/{name}": values[name] for name in values}
        return metrics

    def compare_with_reference(
        self,
        config: ArenaConfig,
        ctx: Context,
        questions: Sequence[Mapping[str, Any]],
        found: dict[str, Any],
    ) -> dict[str, float]:
        """Add the known order to what was found, and return how far the ranking agrees with it."""
        artifact = ctx.maybe("reference")
        if artifact is None:
            return {}
        tasks = config.reference_tasks or sorted({row["task"] for row in questions})
        models = [row["model"] for row in found["ranking"]]
        known = read_reference(artifact, models, tasks, config.reference_metric, ctx)
        tau = bradley_terry.kendall_tau(arena_tables.ratings(found["ranking"]), known.values)
        found["reference"] = {
            "name": artifact.name,
            "metric": config.reference_metric,
            "cells": list(known.cells),
            "values": dict(known.values),
            "kendall_tau": tau,
        }
        agreement = {} if tau is None else {"reference/kendall_tau": tau}
        return {**agreement, "reference/models": len(known.values)}


def per_model(ranked: arena_tables.Ranking) -> dict[str, dict[str, float]]:
    """Model -> its values in scores.json."""
    return {row["model"]: {name: row[name] for name in PER_MODEL} for row in ranked}


def chosen_questions(config: ArenaConfig, ctx: Context) -> list[dict[str, Any]]:
    """The questions that all models get: those for chat, of the tasks that are asked.

    Raises:
        StageError: fewer than two are left.
    """
    source = ctx.one("questions")
    rows = load_questions(source, 0, config.seed)
    known = sorted({row["task"] for row in rows})
    unknown = sorted(set(config.tasks) - set(known))
    if unknown:
        raise StageError(
            f"{ctx.step}.tasks: {source.name} has no task {unknown[0]!r}; it has {', '.join(known)}"
        )
    of_tasks = [row for row in rows if not config.tasks or row["task"] in config.tasks]
    chat = [row for row in of_tasks if row["style"] == "chat"]
    if len(chat) < len(of_tasks):
        ctx.say(
            f"{ctx.step}: {len(of_tasks) - len(chat)} of {len(of_tasks)} questions are text to "
            "continue, not to answer, and are left out"
        )
    questions = draw(chat, config.limit, config.seed) if config.limit else chat
    if len(questions) < 2:
        raise StageError(
            f"{ctx.step}: {source.name} has {len(questions)} questions to answer that are not for "
            "training; an arena needs two, better dozens, since its intervals come from them"
        )
    return questions


def pair_up(texts: Mapping[str, Sequence[str]], config: ArenaConfig) -> list[Match]:
    """All pairs of models at each question, or ``pairs_per_prompt`` of them.

    Which model is the first of a pair is drawn, so that neither side is a model's own.
    """
    rng = random.Random(f"arena {config.seed}")
    pairs = list(combinations(texts, 2))
    number = config.pairs_per_prompt or len(pairs)
    matches = []
    for question in range(len(next(iter(texts.values())))):
        for pair in rng.sample(pairs, min(number, len(pairs))):
            first, second = rng.sample(pair, 2)
            answers = (texts[first][question], texts[second][question])
            matches.append(Match(question, first, second, answers))
    return matches


def judge(
    name: str,
    matches: Sequence[Match],
    questions: Sequence[Mapping[str, Any]],
    texts: Mapping[str, Sequence[str]],
    config: ArenaConfig,
    ctx: Context,
) -> tuple[list[Judgment], Scores]:
    """What the judge of that name says about each match; the scores of one that scores."""
    if name in READERS:
        ask = _reader(config, ctx)
        return arena_judges.by_reading(ask, matches, questions, config.rubric), {}
    scorer = _scorer(name, config, ctx)
    scores = {model: scorer(answers, questions) for model, answers in texts.items()}
    return arena_judges.by_score(scores, matches, config.tie_margin), scores


def _scorer(name: str, config: ArenaConfig, ctx: Context) -> arena_judges.Scorer:
    from llmstages.core.registry import load_component

    if name == "grader":
        return arena_judges.grade
    if name == "reward":
        ((reward, spec),) = config.rewards.items()
        return arena_judges.reward_scorer(reward, load_component("rewards", spec))
    return arena_judges.reward_model_scorer(ctx.one("reward_model"))


def _reader(config: ArenaConfig, ctx: Context) -> Callable[[Sequence[str]], Sequence[str | None]]:
    """What asks a judge that reads both answers. A judge that writes takes the likeliest tokens."""
    if config.judge == "model" and config.verdict == "likelihood":
        judge_model = ctx.one("judge_model")
        return partial(arena_judges.likelier, judge_model, config.judge_batch, config.dtype, ctx)
    from llmstages.data.answer_cache import AnswerCache

    settings = {"temperature": 0.0, "max_tokens": config.judge_max_new_tokens}
    if config.judge == "endpoint":
        answerer: Answerer = config.service(ctx.step, config.endpoint_model, settings)
    else:
        from llmstages.train.model_step import ModelStep

        seeded = {**settings, "seed": config.seed}
        answerer = ModelStep(ctx.one("judge_model"), ctx, seeded, config.judge_batch)
    return partial(arena_judges.written, answerer, AnswerCache(ctx, []))


def _answers(
    artifact: Artifact,
    questions: Sequence[Mapping[str, Any]],
    config: ArenaConfig,
    ctx: Context,
) -> list[Answered]:
    """What a model answers, with the tools if it may call them."""
    may_call = not config.with_tools or artifact.name in config.with_tools
    settings = GenerationSettings(
        temperature=config.temperatures.get(artifact.name, config.temperature),
        max_new_tokens=config.max_new_tokens,
        max_tool_calls=config.max_tool_calls,
        batch=config.batch,
        seed=config.seed,
        dtype=config.dtype,
    )
    return answer(artifact, questions, ctx.maybe("tools") if may_call else None, settings, ctx)


def _measure(
    config: ArenaConfig,
    ctx: Context,
    models: Sequence[str],
    matches: Sequence[Match],
    judgments: Sequence[Judgment],
    gold: Sequence[Judgment] | None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """What arena.json holds, and the metrics."""
    undecided = require_verdicts(config.judge, judgments, ctx)
    drawing = {"draws": config.bootstrap, "seed": config.seed}
    ranked = arena_tables.ranking(matches, judgments, models, **drawing)
    position = arena_tables.position_bias(matches, judgments)
    length = arena_tables.length_bias(matches, judgments, gold)
    ties = sum(judgment.result == 0.5 for judgment in judgments)
    metrics: dict[str, float] = {
        "models": len(models),
        "comparisons": len(judgments),
        "undecided": undecided,
        "ties": ties / (len(judgments) - undecided),
    }
    found: dict[str, Any] = {
        "judge": config.judge,
        "ranking": ranked,
        "wins": arena_tables.wins_table(matches, judgments),
        "position": position,
        "length": length,
    }
    metrics |= {f"position/{name}": value for name, value in position.items()}
    metrics |= {f"length/{name}": value for name, value in length.items()}
    if gold is not None:
        metrics["gold/undecided"] = require_verdicts(config.gold, gold, ctx)
        gold_ranked = arena_tables.ranking(matches, gold, models, **drawing)
        agreement = arena_tables.agreement(matches, judgments, gold, ranked, gold_ranked)
        found["gold"] = {"judge": config.gold, "ranking": gold_ranked, "agreement": agreement}
        metrics |= {f"gold/{name}": value for name, value in agreement.items()}
    return found, metrics


def require_verdicts(name: str, judgments: Sequence[Judgment], ctx: Context) -> int:
    """How many judgments of a judge have no verdict; they do not count, and a line says so.

    Raises:
        StageError: none of the comparisons that it was asked about has one.
    """
    judged = [judgment for judgment in judgments if judgment.asked or judgment.scores]
    if judged and all(judgment.result is None for judgment in judged):
        raise StageError(
            f"{ctx.step}: the judge {name} decided none of {len(judged)} comparisons: it wrote no "
            "verdict that could be read, abstained, or could not read them whole. Take another one"
        )
    undecided = sum(judgment.result is None for judgment in judgments)
    if undecided:
        ctx.say(
            f"{ctx.step}: {undecided} of {len(judgments)} comparisons have no verdict of {name} "
            "and do not count"
        )
    return undecided
