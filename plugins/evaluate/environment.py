"""evaluator environment: let a model act in the environments of problems, and count what it earns.

Metrics of each environment, over its episodes:

reward      mean of what an episode earned, the sum of the rewards of its steps
solved      share of the episodes that earned ``solved_from`` or more
turns       mean number of steps
failed      share in which the environment raised an error; they count in nothing else

Beside the first two are the ends of their 95 % intervals (``reward_low``, ``solved_high``, ...) and
beside all of them ``n``. Questions without an environment are left to other evaluators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.intervals import of_mean, wilson
from llmstages.plugins.evaluate.answers import transcript
from llmstages.text import generate
from llmstages.text.environments import Episode, has_environment, open_episode, require_working
from llmstages.text.tool_runs import Tools


@dataclass(frozen=True)
class EnvironmentEvaluatorConfig:
    max_new_tokens: int = option(64, "longest turn in tokens", ge=1)
    solved_from: float = option(1.0, "an episode that earned this or more counts as solved")
    temperature: float = option(0.0, "temperature of the sampled turns; 0: greedy", ge=0)
    max_tool_calls: int = option(
        generate.DEFAULT_CALLS, "calls of one episode at most; 0: no tool is run", ge=0
    )
    batch: int = option(64, "prompts generated together at most", ge=1)


class EnvironmentEvaluator:
    """Mean reward and share solved in environments."""

    Config = EnvironmentEvaluatorConfig
    smoke: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 16}
    version = "1"

    def __init__(self, config: EnvironmentEvaluatorConfig) -> None:
        self.config = config

    def score(
        self,
        model: Any,
        tokenizer: Any,
        questions: Sequence[Mapping[str, Any]],
        tools: Tools | None,
        advance: Callable[[float], None],
    ) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, float]]:
        """Act in all episodes: (scores, answers, facts), as in llmstages.plugin.Evaluator."""
        asked = [question for question in questions if has_environment(question)]
        if not asked:
            raise StageError(
                "the evaluator environment has nothing to do: no question has an environment; "
                "wire problems=environment, or leave the evaluator out"
            )
        episodes = [episode for episode in map(open_episode, asked) if episode]
        replies = generate.reply(
            model,
            tokenizer,
            [question["prompt"] for question in asked],
            tools,
            episodes=episodes,
            max_calls=self.config.max_tool_calls,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            batch=self.config.batch,
            advance=advance,
        )
        require_working(episodes)
        answers = []
        by_group: dict[str, list[Episode]] = {}
        for number, (question, episode, reply) in enumerate(
            zip(asked, episodes, replies, strict=True), 1
        ):
            by_group.setdefault(question["group"], []).append(episode)
            answers.append(
                {
                    "task": question["task"],
                    "group": question["group"],
                    "question": number,
                    "prompt": question["prompt"][-1]["content"],
                    "wanted": "",
                    "answer": transcript(reply.messages),
                    "right": self._is_solved(episode),
                    "reward": episode.score,
                    "role": question["role"],
                }
            )
        tasks: dict[str, dict[str, dict[str, float]]] = {}
        for question in asked:
            groups = tasks.setdefault(question["task"], {})
            groups[question["group"]] = self._metrics(by_group[question["group"]])
        return tasks, answers, {}

    def _is_solved(self, episode: Episode) -> bool:
        return not episode.error and episode.earned >= self.config.solved_from

    def _metrics(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """The metrics of one environment."""
        whole = [episode for episode in episodes if not episode.error]
        failed = 1 - len(whole) / len(episodes)
        if not whole:
            return {"failed": failed, "n": 0}
        earned = [episode.earned for episode in whole]
        solved = sum(map(self._is_solved, whole))
        solved_low, solved_high = wilson(solved, len(whole))
        ends = {"solved_low": solved_low, "solved_high": solved_high}
        if len(whole) > 1:
            ends["reward_low"], ends["reward_high"] = of_mean(earned)
        return {
            "reward": sum(earned) / len(whole),
            "solved": solved / len(whole),
            "turns": sum(episode.turns for episode in whole) / len(whole),
            "n": len(whole),
            "failed": failed,
            **ends,
        }
