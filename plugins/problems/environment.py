"""problems.environment: episodes of environments, which answer a policy until they are done.

Any object with reset and step will do (llmstages.plugin.Environment). A problem is a seed: its
prompt is the first observation, and the dialogue goes on in training and evaluation
(text/environments.py). Seeds of the role ``test`` are drawn apart from those of practice. Whether
two seeds differ in more than their numbers is up to the environment, so the number of different
prompts is printed; an environment that shows its secret later says the same each time.
"""

from __future__ import annotations

import dataclasses as dc
import random
from collections.abc import Mapping
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.core.stage import Context, option
from llmstages.text.environments import GROUP, Episode, require_working, spec_text
from llmstages.text.messages import message

SEEDS = 2**31  # what every random generator takes


class Environment:
    """Episodes of environments, by seed."""

    @dc.dataclass(frozen=True)
    class Config:
        environments: dict[str, Any] = option(
            help="name -> environment and its settings, such as "
            "problems.environments.guess=./my_env.py:Guess",
            factory=dict,
        )
        count: int = option(1000, "episodes of each environment, test and practice", ge=2)
        test_fraction: float = option(
            0.1, "share of the episodes kept for evaluation (role = test)", ge=0, le=1
        )
        max_turns: int = option(8, "turns of the model after which an episode ends", ge=1)
        seed: int = option(0, "of the draw of the episodes' seeds", ge=0)

    inputs: dict[str, str] = {}
    output = "problems"
    version = "1"
    smoke: Mapping[str, Any] = {"count": 40}
    components: dict[str, tuple[str, ...]] = {GROUP: ()}

    def validate(self, config: Config, step: str) -> None:
        """Refuse a run without any environment."""
        if not config.environments:
            raise StageError(
                f"{step}.environments is empty; name one, for example "
                f"{step}.environments.mine=./my_env.py:MyEnvironment"
            )

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The number of episodes, in all and for evaluation."""
        number = len(config.environments)
        return {
            "examples": number * config.count,
            "test": number * self._num_test(config),
            "groups": number,
        }

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables

        rows: list[dict[str, Any]] = []
        failed = 0
        for name, spec in config.environments.items():
            of_environment = self._rows(name, spec, config, ctx)
            failed += config.count - len(of_environment)
            rows += of_environment
        tables.save(rows, ctx.out / "data")
        tests = sum(row["role"] == "test" for row in rows)
        return {
            "examples": len(rows),
            "test": tests,
            "groups": len(config.environments),
            "failed": failed,
        }

    def _num_test(self, config: Config) -> int:
        return round(config.count * config.test_fraction)

    def _rows(
        self, name: str, spec: Mapping[str, Any], config: Config, ctx: Context
    ) -> list[dict[str, Any]]:
        """The episodes of one environment; those that fail to begin are counted and left out."""
        # Those of the test come first, so that more practice leaves them as they are.
        seeds = random.Random(config.seed).sample(range(SEEDS), config.count)
        num_test = self._num_test(config)
        rows: list[dict[str, Any]] = []
        episodes = []
        for place, seed in enumerate(seeds):
            opening = Episode(load_component(GROUP, spec), seed, config.max_turns).begin()
            # It is begun again, since every rollout must begin with what the prompt says.
            episode = Episode(load_component(GROUP, spec), seed, config.max_turns, opening)
            episode.begin()
            episodes.append(episode)
            if episode.error:
                continue
            rows.append(
                {
                    "prompt": [message("user", opening)],
                    "answer": "",
                    "task": "environment",
                    "group": name,
                    "role": "test" if place < num_test else "train",
                    "meta": spec_text(spec, seed, config.max_turns),
                }
            )
        require_working(episodes)
        if len(rows) < len(seeds):
            error = next(episode.error for episode in episodes if episode.error)
            ctx.say(
                f"{ctx.step}: {len(seeds) - len(rows)} of {len(seeds)} episodes of {name} dropped, "
                f"since reset failed, as with {error}"
            )
        different = len({row["prompt"][0]["content"] for row in rows})
        ctx.say(f"{ctx.step}: {len(rows)} episodes of {name} begin with {different} prompts")
        return rows
