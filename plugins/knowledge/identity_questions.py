"""problems.identity: the phrasings that knowledge.identity held out, as problems to measure with.

The answer is what a right reply states: the name, the maker; where yes or no is the point, "No, I
am Ada", so that a model which agrees to be somebody else is wrong even if it says its name.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option


@dataclass(frozen=True)
class IdentityQuestionsConfig:
    seed: int = option(0, "seed of the choice of questions")
    per_group: int = option(100, "questions of each group at most", ge=1)


class IdentityQuestions:
    """Held-out questions about who the model is."""

    Config = IdentityQuestionsConfig
    smoke: ClassVar[Mapping[str, Any]] = {"per_group": 2}
    inputs: ClassVar[Mapping[str, str]] = {"identity": "dialogues"}
    output: ClassVar[str] = "problems"
    version: ClassVar[str] = "2"

    def run(self, config: IdentityQuestionsConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        source = ctx.one("identity")
        path = source.path / "identity.json"
        if not path.exists():
            raise StageError(
                f"{source.name} holds no identity.json: these questions are those that "
                f"knowledge=identity holds out; wire it: steps.{ctx.step}.identity=STEP"
            )
        by_group: dict[str, list[dict[str, Any]]] = {}
        for question in json.loads(path.read_text(encoding="utf-8"))["questions"]:
            by_group.setdefault(question["group"], []).append(question)
        if not by_group:
            raise StageError(
                f"{source.name} held no questions out; raise {source.name}.test_fraction"
            )
        rng = random.Random(f"identity questions {config.seed}")
        rows: list[dict[str, Any]] = []
        for group, questions in by_group.items():
            chosen = rng.sample(questions, min(config.per_group, len(questions)))
            if len(chosen) < len(questions):
                ctx.say(
                    f"{ctx.step}: {len(chosen)} of {len(questions)} held-out questions about "
                    f"{group!r} taken (per_group={config.per_group})"
                )
            rows += [
                {"task": "identity", **question, "role": "test", "style": "chat", "meta": "{}"}
                for question in chosen
            ]
        tables.save(rows, ctx.out / "data")
        metrics = {"questions": len(rows)}
        for group in by_group:
            metrics[f"questions/{group}"] = sum(row["group"] == group for row in rows)
        return metrics
