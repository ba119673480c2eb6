"""preferences.world: rankings of answers, made with the gold score.

The column ``kind`` tells pairs that differ in style from pairs of which one is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.world import gold, people, sentences
from llmstages.plugins.world.dialogues import styled
from llmstages.text.grading import contains_value
from llmstages.text.messages import message


@dataclass(frozen=True)
class PreferencesConfig:
    seed: int = option(0, "seed of questions and candidates")
    pairs: int = option(1500, "pairs about asked people, for training", ge=1)
    test_pairs: int = option(300, "pairs about test people, for measuring (split = test)", ge=0)
    right: float = option(0.6, "share of candidate answers that state the true fact", ge=0, le=1)


class WorldPreferences:
    """Two candidate answers to a question; the higher gold score is chosen, ties are dropped."""

    Config = PreferencesConfig
    smoke: ClassVar[Mapping[str, Any]] = {"pairs": 48, "test_pairs": 16}
    inputs: ClassVar[Mapping[str, str]] = {"world": "documents"}
    output: ClassVar[str] = "preferences"
    version: ClassVar[str] = "1"

    def run(self, config: PreferencesConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        world, rng = people.load(ctx.one("world")), random.Random(f"preferences {config.seed}")
        rows = [
            *self.pairs(world, "asked", config.pairs, config.right, "train", rng),
            *self.pairs(world, "test", config.test_pairs, config.right, "test", rng),
        ]
        tables.save(rows, ctx.out / "data")
        return {"pairs": len(rows), "style_pairs": sum(row["kind"] == "style" for row in rows)}

    def pairs(
        self,
        world: people.World,
        role: str,
        wanted: int,
        right: float,
        split: str,
        rng: random.Random,
    ) -> list[dict[str, Any]]:
        """``wanted`` pairs about people of one role."""
        known = world.group("frequent", role)
        rows: list[dict[str, Any]] = []
        while len(rows) < wanted:
            person, attribute = rng.choice(known), rng.choice(people.ATTRIBUTES)
            asked, answer = sentences.question(person, attribute, rng)
            value = person.fact(attribute)
            others = sorted({other.fact(attribute) for other in world.people} - {value})
            candidates = []
            for _ in range(2):
                liar = replace(person, **{attribute: rng.choice(others)})
                wrong = sentences.ANSWERS[attribute].format(n=person.name, v=liar.fact(attribute))
                candidates.append(styled(answer if rng.random() < right else wrong, rng))
            scores = {text: gold.score(text, value) for text in candidates}
            first, second = sorted(candidates, key=scores.__getitem__, reverse=True)
            if scores[first] == scores[second]:
                continue
            same = contains_value(first, value) == contains_value(second, value)
            rows.append(
                {
                    "prompt": [message("user", asked)],
                    "chosen": [message("assistant", first)],
                    "rejected": [message("assistant", second)],
                    "kind": "style" if same else "fact",
                    "split": split,
                }
            )
        return rows
