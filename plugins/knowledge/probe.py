"""knowledge.probe: find out what a model knows, and teach it where its knowledge ends.

The procedure of Llama 3 (Dubey et al. 2024, section 4.3.6): ask each question several times, call a
fact known when the answers are right and agree, and teach "I don't know" for the rest. Questions
come with answers (a problems artifact). Where some have the role ``probe``, only those are used;
those of the roles ``test`` and ``threshold`` never are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.splits import MEASURING_ROLES
from llmstages.text.messages import message
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
    refusal: str = option("I am sorry, I do not know that.", "what is taught for unknown facts")
    ratio: float = option(
        3.0, "refusals for each known answer at most; the rest is dropped and counted", gt=0
    )
    limit: int = option(2000, "questions probed at most", ge=1)
    max_new_tokens: int = option(48, "longest answer in tokens", ge=1)
    dtype: str = dtype_option()


@dataclass
class Judged:
    """Dialogues with known answers, dialogues with refusals, and the share of right samples."""

    known: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[dict[str, Any]] = field(default_factory=list)
    shares: list[dict[str, Any]] = field(default_factory=list)


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
    version: ClassVar[str] = "3"

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
        rows = self.questions(config, ctx, rng)
        samples = self.sample(config, ctx, rows)
        judged = self.judge(config, rows, samples)
        refusals: list[dict[str, Any]] = []
        if judged.unknown:
            most = max(1, round(config.ratio * len(judged.known)))
            refusals = rng.sample(judged.unknown, min(len(judged.unknown), most))
        left_out = len(judged.unknown) - len(refusals)
        if left_out:
            ctx.say(
                f"{ctx.step}: {left_out} of {len(judged.unknown)} refusals left out "
                f"(ratio={config.ratio})"
            )
        dialogues = [*judged.known, *refusals]
        rng.shuffle(dialogues)
        tables.save(dialogues, ctx.out / "data", columns=("messages", "known", "group"))
        tables.write_lines(ctx.out / "probe.jsonl", judged.shares)
        return {
            "probed": len(rows),
            "known": len(judged.known),
            "unknown": len(judged.unknown),
            "refusals": len(refusals),
            **known_by_group(judged.shares, config.known),
        }

    def questions(
        self, config: ProbeConfig, ctx: Context, rng: random.Random
    ) -> list[dict[str, Any]]:
        """The questions to probe with."""
        from llmstages.data import tables

        rows = [dict(row) for row in tables.load(ctx.one("questions").path / "data")]
        chosen = [row for row in rows if row.get("role") == "probe"]
        if not chosen:
            chosen = [row for row in rows if row.get("role") not in MEASURING_ROLES]
        if not chosen:
            raise StageError(
                f"{ctx.step}: {ctx.one('questions').name} holds no questions to probe with"
            )
        return rng.sample(chosen, min(config.limit, len(chosen)))

    def sample(
        self, config: ProbeConfig, ctx: Context, rows: Sequence[Mapping[str, Any]]
    ) -> list[list[str]]:
        """The sampled answers to each question, as texts."""
        from llmstages.text import generate
        from llmstages.train.inference import load_for_inference
        from llmstages.train.trainer import load_tokenizer

        count = config.num_generations
        model = load_for_inference(ctx.one("model"), ctx, config.dtype)
        tokenizer = load_tokenizer(ctx.one("model").path)
        prompts = [row["prompt"] for row in rows for _ in range(count)]
        with ctx.progress(f"{ctx.step} probing", len(prompts)) as advance:
            replies = generate.reply(
                model,
                tokenizer,
                prompts,
                temperature=config.temperature,
                advance=advance,
                max_new_tokens=config.max_new_tokens,
                max_calls=0,
            )
        texts = [reply.text for reply in replies]
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def judge(
        self,
        config: ProbeConfig,
        rows: Sequence[Mapping[str, Any]],
        samples: Sequence[Sequence[str]],
    ) -> Judged:
        """Which facts are known and which are not."""
        from llmstages.text.grading import are_right

        judged = Judged()
        asked = [row for row, texts in zip(rows, samples, strict=True) for _ in texts]
        verdicts = iter(are_right([text for texts in samples for text in texts], asked))
        for row, texts in zip(rows, samples, strict=True):
            correct = [text for text in texts if next(verdicts)]
            share = len(correct) / config.num_generations
            group = str(row.get("group") or "all")
            judged.shares.append(
                {
                    "question": row["prompt"][-1]["content"],
                    "answer": row["answer"],
                    "share": share,
                    "group": group,
                    "said": texts[0],
                }
            )
            if share >= config.known:
                # The answer that was given most often; the text itself breaks ties.
                best = max(set(correct), key=lambda text: (correct.count(text), text))
                judged.known.append(_dialogue(row, best, True, group))
            elif share <= config.unknown:
                judged.unknown.append(_dialogue(row, config.refusal, False, group))
        return judged


def _dialogue(row: Mapping[str, Any], answer: str, known: bool, group: str) -> dict[str, Any]:
    messages = [*row["prompt"], message("assistant", answer)]
    return {"messages": messages, "known": known, "group": group}


def known_by_group(shares: Sequence[Mapping[str, Any]], known: float) -> dict[str, float]:
    """``known/GROUP`` -> share of the group's questions that are known."""
    by_group: dict[str, list[float]] = {}
    for row in shares:
        by_group.setdefault(row["group"], []).append(row["share"])
    return {
        f"known/{group}": sum(share >= known for share in by_group[group]) / len(by_group[group])
        for group in sorted(by_group)
    }
