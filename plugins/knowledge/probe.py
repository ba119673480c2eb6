"""knowledge.probe: find out what a model knows, and write dialogues that teach it where its knowledge ends.

The procedure of Llama 3 (Dubey et al. 2024, section 4.3.6): ask each question several times, call a fact known when the
answers are right and agree, and teach "I don't know" for the rest. Questions come with answers (a problems artifact);
only those of the role ``probe`` are used where there are any, and never those of the role ``test``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.text.messages import message


@dataclass(frozen=True)
class ProbeConfig:
    seed: int = option(0, "seed of the samples")
    num_generations: int = option(5, "answers sampled for each question", renamed_from="samples")
    temperature: float = option(0.7, "temperature of the samples")
    known: float = option(0.8, "share of right samples from which a fact counts as known")
    unknown: float = option(
        0.2,
        "share of right samples up to which it counts as unknown; between the two nothing is taught",
    )
    refusal: str = option("I am sorry, I do not know that.", "what is taught for unknown facts")
    ratio: float = option(
        3.0, "refusals for each known answer at most; the rest is dropped and counted"
    )
    limit: int = option(2000, "questions probed at most")
    max_new_tokens: int = option(48, "longest answer in tokens")


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
    version: ClassVar[str] = "1"

    def run(self, config: ProbeConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import tables
        from llmstages.text import generate
        from llmstages.train.trainer import compute_device, load_model, load_tokenizer

        set_seed(config.seed)
        rng = random.Random(config.seed)
        rows = self.questions(config, ctx, rng)
        model, tokenizer = load_model(ctx.one("model"), ctx), load_tokenizer(ctx.one("model").path)
        model.to(compute_device())
        how: dict[str, Any] = {"max_new_tokens": config.max_new_tokens, "rounds": 1}
        with ctx.progress(f"{ctx.step} probing", len(rows) * config.num_generations) as advance:
            sampled = generate.reply(
                model,
                tokenizer,
                [r["prompt"] for r in rows for _ in range(config.num_generations)],
                temperature=config.temperature,
                advance=advance,
                **how,
            )
        known, unknown, shares = self.judge(config, rows, sampled)
        kept = (
            rng.sample(unknown, min(len(unknown), max(1, round(config.ratio * len(known)))))
            if unknown
            else []
        )
        if len(kept) < len(unknown):
            ctx.say(
                f"{ctx.step}: {len(unknown) - len(kept)} of {len(unknown)} refusals left out (ratio={config.ratio})"
            )
        out = [*known, *kept]
        rng.shuffle(out)
        tables.save(out, ctx.out / "data", columns=("messages", "known", "group"))
        tables.write_lines(ctx.out / "probe.jsonl", shares)
        groups = sorted({s["group"] for s in shares})
        by_group = {
            f"known/{g}": sum(s["share"] >= config.known for s in shares if s["group"] == g)
            / sum(s["group"] == g for s in shares)
            for g in groups
        }
        return {
            "probed": len(rows),
            "known": len(known),
            "unknown": len(unknown),
            "refusals": len(kept),
            **by_group,
        }

    def questions(
        self, config: ProbeConfig, ctx: Context, rng: random.Random
    ) -> list[dict[str, Any]]:
        """The questions to probe with."""
        from llmstages.data import tables

        rows = [dict(row) for row in tables.load(ctx.one("questions").path / "data")]
        chosen = [row for row in rows if row.get("role") == "probe"] or [
            row for row in rows if row.get("role") != "test"
        ]
        if not chosen:
            raise StageError(
                f"{ctx.step}: {ctx.one('questions').name} holds no questions to probe with"
            )
        return rng.sample(chosen, min(config.limit, len(chosen)))

    def judge(
        self, config: ProbeConfig, rows: Sequence[Mapping[str, Any]], sampled: Sequence[Any]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """(known answers as dialogues, refusals as dialogues, the share of right samples of each question)."""
        from llmstages.text.grading import right

        known, unknown, shares = [], [], []
        for index, row in enumerate(rows):
            texts = [
                r.text
                for r in sampled[
                    index * config.num_generations : (index + 1) * config.num_generations
                ]
            ]
            good = [t for t in texts if right(t, row["answer"])]
            share, group = len(good) / config.num_generations, str(row.get("group") or "all")
            shares.append(
                {
                    "question": row["prompt"][-1]["content"],
                    "answer": row["answer"],
                    "share": share,
                    "group": group,
                    "said": texts[0],
                }
            )
            if share >= config.known:
                best = max(set(good), key=lambda t: (good.count(t), t))
                known.append(
                    {
                        "messages": [*row["prompt"], message("assistant", best)],
                        "known": True,
                        "group": group,
                    }
                )
            elif share <= config.unknown:
                unknown.append(
                    {
                        "messages": [*row["prompt"], message("assistant", config.refusal)],
                        "known": False,
                        "group": group,
                    }
                )
        return known, unknown, shares
