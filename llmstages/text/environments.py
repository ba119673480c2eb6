"""Environments: objects that answer what a model says, until they are done, and pay for it.

An environment has ``reset(seed=...)`` and ``step(text)``, as in OpenEnv and Gymnasium; no package
of theirs is needed. It runs in this process. A problem names its environment, its seed and the most
turns in its column ``meta`` (``spec_text``), so that training and evaluation act in the same ones.

Left out on purpose: environments behind a server, and actions that are no texts. Ten lines around
such an environment turn a text into its action and what it returns into a text.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text.messages import Message, message

GROUP = "environments"
TEXT_FIELDS = ("observation", "text", "message")  # where the text of a result is looked for
# Results as tuples of Gymnasium: of reset, and of step.
RESET_TUPLE = ("observation", "info")
STEP_TUPLE = ("observation", "reward", "terminated", "truncated", "info")
SHAPE = (
    "a result is a text, an object or a dictionary with observation, reward and done, or a tuple "
    "of Gymnasium: (observation, info) of reset, (observation, reward, terminated, truncated, "
    "info) of step; the observation must be a text"
)
MOST_FAILED = 0.2  # share of the episodes of one sampling that may fail
SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Result:
    """What an environment says at its beginning or after a step."""

    observation: str
    reward: float = 0.0
    done: bool = False


def read_result(value: Any, names: Sequence[str] = STEP_TUPLE) -> Result:
    """The result of reset() or step(), in any of the forms of SHAPE.

    Args:
        value: what was returned.
        names: what the places of a tuple hold.

    Raises:
        StageError: the value has another form, or its reward is not a finite number.
    """
    if isinstance(value, str):
        return Result(value)
    if isinstance(value, tuple):
        if len(value) != len(names):
            raise StageError(f"an environment returned {_shown(value)}; {SHAPE}")
        value = dict(zip(names, value, strict=True))
    texts = [_field(value, name) for name in TEXT_FIELDS]
    observation = next((text for text in texts if text is not None), None)
    if not isinstance(observation, str):
        raise StageError(f"an environment returned {_shown(value)}; {SHAPE}")
    ends = [_field(value, name) for name in ("done", "terminated", "truncated")]
    return Result(observation, _reward(_field(value, "reward")), any(bool(end) for end in ends))


def _field(value: Any, name: str) -> Any:
    """A key of a dictionary, or an attribute of an object; None where there is none."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _reward(value: Any) -> float:
    """The reward of a step; OpenEnv says None where there is none."""
    if value is None:
        return 0.0
    try:
        reward = float(value)
    except (TypeError, ValueError):
        reward = math.nan
    if not math.isfinite(reward):
        raise StageError(f"an environment paid {_shown(value)}; a reward is a finite number")
    return reward


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


@dataclass
class Episode:
    """One dialogue with an environment: its first observation is the prompt of its problem.

    Attributes:
        environment: that acts; each episode has its own.
        seed: of reset().
        max_turns: turns of the model after which the episode ends.
        opening: the first observation, which reset() must repeat; None takes any.
        earned: sum of the rewards so far.
        turns: steps so far.
        done: whether the environment has ended the episode itself.
        error: what the environment raised, "" if nothing; such an episode has ended.
    """

    environment: Any
    seed: int
    max_turns: int
    opening: str | None = None
    earned: float = 0.0
    turns: int = 0
    done: bool = False
    error: str = ""
    _has_begun: bool = field(default=False, repr=False)

    def begin(self) -> str:
        """Reset the environment: its first observation, "" if it fails."""
        self._has_begun = True
        result = self._guarded(lambda: reset(self.environment, self.seed))
        if result is None:
            return ""
        if self.opening is not None and result.observation != self.opening:
            self.error = (
                f"reset(seed={self.seed}) said {_shown(result.observation)}, and "
                f"{_shown(self.opening)} when the problems were made; it must follow from the seed"
            )
        return result.observation

    def after(self, said: str) -> list[Message]:
        """The turn of the user that follows a turn of the model; [] where the episode ends."""
        if not self._has_begun:
            self.begin()
        if self.done or self.error or self.turns >= self.max_turns:
            return []
        result = self._guarded(lambda: read_result(self.environment.step(said)))
        if result is None:
            return []
        self.turns += 1
        self.earned += result.reward
        self.done = result.done
        if self.done or self.turns >= self.max_turns:
            return []
        return [message("user", result.observation)]

    @property
    def score(self) -> float | None:
        """What was earned; None where the environment failed, since nobody knows it then."""
        return None if self.error else self.earned

    def _guarded(self, call: Callable[[], Result]) -> Result | None:
        try:
            return call()
        except StageError:
            raise
        # An environment is foreign code, so it may raise anything.
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            return None


def reset(environment: Any, seed: int) -> Result:
    """Reset an environment by a seed.

    Raises:
        StageError: its reset() takes no seed, so no episode could be repeated.
    """
    try:
        inspect.signature(environment.reset).bind(seed=seed)
    except TypeError as error:
        raise StageError(
            f"{type(environment).__name__}.reset cannot be called as reset(seed=...): {error}. "
            "An episode must follow from its seed, or no problem could be asked again"
        ) from error
    return read_result(environment.reset(seed=seed), RESET_TUPLE)


def spec_text(spec: Mapping[str, Any], seed: int, max_turns: int) -> str:
    """The column ``meta`` of a problem with an environment."""
    meta = {"environment": dict(spec), "seed": seed, "max_turns": max_turns}
    return json.dumps(meta, sort_keys=True)


def has_environment(row: Mapping[str, Any]) -> bool:
    """Whether a problem is an episode of an environment."""
    return _meta_of(row) is not None


def _meta_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The meta column of a problem with an environment; None for any other."""
    written = row.get("meta") or ""
    if '"environment"' not in written:
        return None
    meta = json.loads(written)
    spec = meta.get("environment")
    return meta if isinstance(spec, Mapping) and "use" in spec else None


def open_episode(row: Mapping[str, Any]) -> Episode | None:
    """A fresh episode of a problem; None where the problem has no environment.

    Args:
        row: with the columns ``meta`` and ``prompt``.
    """
    from llmstages.core.registry import load_component

    meta = _meta_of(row)
    if meta is None:
        return None
    environment = load_component(GROUP, meta["environment"])
    opening = str(row["prompt"][-1]["content"])
    return Episode(environment, int(meta["seed"]), int(meta["max_turns"]), opening)


def require_working(episodes: Sequence[Episode | None]) -> float:
    """The share of the episodes that failed.

    Raises:
        StageError: it is above MOST_FAILED.
    """
    opened = [episode for episode in episodes if episode is not None]
    failed = [episode for episode in opened if episode.error]
    if len(failed) > MOST_FAILED * len(opened):
        raise StageError(
            f"the environment {type(failed[-1].environment).__name__} failed in {len(failed)} of "
            f"{len(opened)} episodes, the last one (seed {failed[-1].seed}) with: "
            f"{failed[-1].error}"
        )
    return len(failed) / len(opened) if opened else 0.0
