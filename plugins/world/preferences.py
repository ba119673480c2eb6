"""preferences.world: rankings of answers, made with the gold score. ``kind`` tells style pairs from correctness pairs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.plugins.world import gold, people, sentences
from llmstages.plugins.world.dialogues import styled
from llmstages.text.grading import states
from llmstages.text.messages import message


@dataclass(frozen=True)
class PreferencesConfig:
    seed: int = option(0, "seed of questions and candidates")
    pairs: int = option(1500, "pairs about asked people, for training")
    test_pairs: int = option(300, "pairs about test people, for measuring (split = test)")
    right: float = option(0.6, "share of candidate answers that state the true fact")


class WorldPreferences:
    """Two candidate answers to one question; the one with the higher gold score is chosen, ties are thrown away."""

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
        known, rows = world.group("frequent", role), []
        while len(rows) < wanted:
            person, attribute = rng.choice(known), rng.choice(people.ATTRIBUTES)
            asked, answer = sentences.question(person, attribute, rng)
            value, others = (
                person.fact(attribute),
                sorted({p.fact(attribute) for p in world.people} - {person.fact(attribute)}),
            )
            candidates = []
            for _ in range(2):
                liar = replace(person, **{attribute: rng.choice(others)})
                wrong = sentences.ANSWERS[attribute].format(n=person.name, v=liar.fact(attribute))
                candidates.append(styled(answer if rng.random() < right else wrong, rng))
            first, second = sorted(
                candidates, key=lambda text: gold.score(text, value), reverse=True
            )
            if gold.score(first, value) == gold.score(second, value):
                continue
            same = states(first, value) == states(second, value)
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
