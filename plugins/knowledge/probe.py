"""knowledge.probe: find out what a model knows, and teach it where its knowledge ends.

The procedure of Llama 3 (Dubey et al. 2024, section 4.3.6): ask each question several times
without its passage, call a fact known when the answers are right, and teach "I don't know", or a
search, for the rest. Questions come with answers (a problems artifact; problems=passages makes them
of a corpus). Where some have the role ``probe``, only those are used; those of the role ``test``
never are, and those of the role ``threshold`` at most to find where knowledge begins (``sure``).

Everything is kept: probe.jsonl has each question with its passage, all answers and verdicts, the
share right and the agreement; calibration.json says how far agreement can be trusted
(calibration.py). Left out on purpose: answers of a judge that sees the passage (a grader ``judge``
of the problems sees the right answer).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.splits import MEASURING_ROLES
from llmstages.plugins.knowledge import calibration, teaching
from llmstages.plugins.knowledge.teaching import Probed
from llmstages.text.grading import is_refusal
from llmstages.train.inference import dtype_option


@dataclass(frozen=True)
class ProbeConfig:
    seed: int = option(0, "seed of the samples")
    num_generations: int = option(
        5, "answers sampled for each question", ge=1, renamed_from="samples"
    )
    temperature: float = option(0.7, "temperature of the samples", gt=0)
    known: float = option(0.8, "share of right samples from which a fact is known", ge=0, le=1)
    unknown: float = option(
        0.2,
        "share of right samples up to which it is unknown; between the two nothing is taught",
        ge=0,
        le=1,
    )
    sure: float = option(
        0.0,
        "if not 0: `known` is the least share of right samples from which one more sample is right "
        "with this probability, found on the questions of the role threshold",
        ge=0,
        le=1,
    )
    known_groups: list[str] = option(
        help="groups of questions whose answers the model should know; the metric group_auc says "
        "how well the share of right samples tells them from the other groups",
        factory=list,
    )
    teach: list[str] = option(
        help="rows that are made: `refuse` or `search` for what is unknown (search: a row for "
        "tools=search_tokens), `answer` for what is known",
        factory=lambda: ["refuse", "answer"],
    )
    refusal: str = option("I am sorry, I do not know that.", "what is taught for unknown facts")
    refusals: list[str] = option(
        help="more wordings of it; unknown facts take all wordings by turns", factory=list
    )
    ratio: float = option(
        3.0,
        "refusals (or searches) for each known answer at most, where both are taught; the rest is "
        "dropped and counted",
        gt=0,
    )
    limit: int = option(2000, "questions probed at most", ge=1)
    max_new_tokens: int = option(48, "longest answer in tokens", ge=1)
    dtype: str = dtype_option()

    def __post_init__(self) -> None:
        wrong = [kind for kind in self.teach if kind not in teaching.KINDS]
        if wrong or not self.teach:
            raise ValueError(f"teach takes {', '.join(teaching.KINDS)}, not {self.teach}")
        if "refuse" in self.teach and "search" in self.teach:
            raise ValueError(
                "teach has refuse and search, which say two things about one question; use two "
                "steps, and train a model on either"
            )
        if self.unknown >= self.known:
            raise ValueError("unknown must be below known: else a fact would be both")


class Probe:
    """Dialogues of known answers and honest refusals."""

    Config = ProbeConfig
    smoke: ClassVar[Mapping[str, Any]] = {
        "num_generations": 2,
        "limit": 24,
        "known": 0.5,
        "unknown": 0.4,
    }
    inputs: ClassVar[Mapping[str, str]] = {"model": "model", "questions": "problems"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "4"

    def estimate(
        self, config: ProbeConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of all samples."""
        from llmstages.cost.generation import Generation, models_of, row_count

        models = models_of(known["model"])
        if isinstance(models, str):
            return {"no_estimate": models}
        number = min(config.limit, row_count(known["questions"][0]) or config.limit)
        generation = Generation(
            models,
            number * config.num_generations,
            config.max_new_tokens,
            because=f"at most {number:,.0f} questions, each {config.num_generations} times",
        )
        return {"generation": generation}

    def run(self, config: ProbeConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import tables

        set_seed(config.seed)
        rng = random.Random(config.seed)
        rows, thresholds = self.questions(config, ctx, rng)
        asked = [rows] if not thresholds else [rows, thresholds]
        probed, *others = self.probe(config, ctx, asked)
        limit = config.known
        if others:
            limit = self.find_limit(config, ctx, others[0])
            tables.write_lines(ctx.out / "threshold.jsonl", [one.seen("") for one in others[0]])
        known = [one for one in probed if one.share >= limit]
        unknown = [one for one in probed if one.share <= config.unknown]
        most = len(unknown)
        if "answer" in config.teach:
            most = max(1, round(config.ratio * len(known)))
        wordings = [config.refusal, *config.refusals]
        report_wordings(config, wordings, ctx)
        dialogues, left_out = teaching.lessons(known, unknown, config.teach, wordings, most, rng)
        if left_out:
            ctx.say(
                f"{ctx.step}: {left_out} of {len(unknown)} refusals left out (ratio={config.ratio})"
            )
        columns = teaching.COLUMNS
        if "search" in config.teach:
            columns = (*columns, *teaching.SEARCH_COLUMNS)
        tables.save(dialogues, ctx.out / "data", columns=columns)
        seen = [one.seen(fate_of(one, limit, config.unknown)) for one in probed]
        tables.write_lines(ctx.out / "probe.jsonl", seen)
        measured = calibrate(config, ctx, probed)
        taught = sum(not row["known"] for row in dialogues)
        return {
            "probed": len(rows),
            "known": len(known),
            "unknown": len(unknown),
            "refusals": taught if "refuse" in config.teach else 0,
            **({"searches": taught} if "search" in config.teach else {}),
            **known_by_group(seen, limit),
            **({"known_from": limit} if config.sure else {}),
            **measured,
        }

    def questions(
        self, config: ProbeConfig, ctx: Context, rng: random.Random
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The questions to probe with, and those to find ``known`` with (none unless ``sure``)."""
        from llmstages.data import tables

        rows = [dict(row) for row in tables.load(ctx.one("questions").path / "data")]
        chosen = [row for row in rows if row.get("role") == "probe"]
        if not chosen:
            chosen = [row for row in rows if row.get("role") not in MEASURING_ROLES]
        if not chosen:
            raise StageError(
                f"{ctx.step}: {ctx.one('questions').name} holds no questions to probe with"
            )
        thresholds: list[dict[str, Any]] = []
        if config.sure:
            thresholds = [row for row in rows if row.get("role") == "threshold"]
            if not thresholds:
                raise StageError(
                    f"{ctx.step}.sure={config.sure} needs questions of the role threshold, and "
                    f"{ctx.one('questions').name} has none; set {ctx.step}.sure=0, or make some "
                    "(problems=passages: threshold_fraction)"
                )
        return rng.sample(chosen, min(config.limit, len(chosen))), thresholds

    def probe(
        self, config: ProbeConfig, ctx: Context, asked: Sequence[Sequence[Mapping[str, Any]]]
    ) -> list[list[Probed]]:
        """Each list of questions with sampled answers.

        The questions of the second list are asked once more than the others; the last answer is the
        one that is foreseen from the first ones.
        """
        from llmstages.text import generate
        from llmstages.text.grading import are_right
        from llmstages.train.inference import load_for_inference
        from llmstages.train.trainer import load_tokenizer

        model = load_for_inference(ctx.one("model"), ctx, config.dtype)
        tokenizer = load_tokenizer(ctx.one("model").path)
        results = []
        for place, rows in enumerate(asked):
            count = config.num_generations + place
            repeated = [row for row in rows for _ in range(count)]
            with ctx.progress(f"{ctx.step} probing", len(repeated)) as advance:
                replies = generate.reply(
                    model,
                    tokenizer,
                    [row["prompt"] for row in repeated],
                    temperature=config.temperature,
                    advance=advance,
                    max_new_tokens=config.max_new_tokens,
                    max_calls=0,
                )
            texts = [reply.text for reply in replies]
            verdicts = are_right(texts, repeated)
            results.append(
                [
                    judge(row, texts[start : start + count], verdicts[start : start + count])
                    for start, row in zip(range(0, len(texts), count), rows, strict=True)
                ]
            )
        return results

    def find_limit(self, config: ProbeConfig, ctx: Context, others: Sequence[Probed]) -> float:
        """The share of right samples from which a fact is known, by the threshold questions."""
        shares = [sum(one.verdicts[:-1]) / config.num_generations for one in others]
        again = [one.verdicts[-1] for one in others]
        limit = calibration.lowest_sure(shares, again, config.sure)
        if limit is None:
            ctx.say(
                f"{ctx.step}: no share of right samples makes one more right with {config.sure:g} "
                f"on {len(others)} threshold questions; known={config.known:g} stays"
            )
            return config.known
        limit = max(limit, config.unknown + 1e-9)
        ctx.say(
            f"{ctx.step}: known from {limit:.2f} of right samples on: there one more is right with "
            f"at least {config.sure:g} ({len(others)} threshold questions)"
        )
        return limit


def judge(row: Mapping[str, Any], texts: Sequence[str], verdicts: Sequence[bool]) -> Probed:
    """A question with its answers, and how far they agree."""
    agreement, commonest = calibration.agreement(texts)
    return Probed(row, texts, verdicts, agreement, commonest)


def fate_of(one: Probed, known: float, unknown: float) -> str:
    """Whether a fact is known, unknown or between."""
    if one.share >= known:
        return "known"
    return "unknown" if one.share <= unknown else "between"


def report_wordings(config: ProbeConfig, wordings: Sequence[str], ctx: Context) -> None:
    """Say which refusals an evaluation would not recognize."""
    if "refuse" not in config.teach:
        return
    for wording in wordings:
        if not is_refusal(wording):
            ctx.say(
                f"{ctx.step}: the evaluator `answers` does not count {wording!r} as a refusal, "
                'but as a wrong answer; it looks for phrases such as "I don\'t know"'
            )


def calibrate(config: ProbeConfig, ctx: Context, probed: Sequence[Probed]) -> dict[str, float]:
    """Write calibration.json; returns its metrics, without those that nothing can tell."""
    from llmstages.data import tables

    agreements = [one.agreement for one in probed]
    right = [one.verdicts[one.commonest] for one in probed]
    bins = calibration.curve(agreements, right)
    metrics: dict[str, float | None] = {
        "share_right": sum(one.share for one in probed) / len(probed),
        "agreement": sum(agreements) / len(agreements),
        "commonest_right": sum(right) / len(right),
        "calibration_error": calibration.expected_error(bins),
        "agreement_auc": calibration.auc(agreements, right),
    }
    if config.known_groups:
        expected = [one.group in config.known_groups for one in probed]
        shares = [one.share for one in probed]
        metrics["group_auc"] = calibration.auc(shares, expected)
    tables.write_json(ctx.out / "calibration.json", {"bins": bins, "metrics": metrics})
    for name, value in metrics.items():
        if value is None:
            ctx.say(f"{ctx.step}: no {name}: all questions are on the same side of it")
    return {name: value for name, value in metrics.items() if value is not None}


def known_by_group(shares: Sequence[Mapping[str, Any]], known: float) -> dict[str, float]:
    """``known/GROUP`` -> share of the group's questions that are known."""
    by_group: dict[str, list[float]] = {}
    for row in shares:
        by_group.setdefault(row["group"], []).append(row["share"])
    return {
        f"known/{group}": sum(share >= known for share in by_group[group]) / len(by_group[group])
        for group in sorted(by_group)
    }
