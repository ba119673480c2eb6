"""Components made of one plain function, for ``PATH.py:FUNCTION`` (core/file_components.py).

The contracts in ``llmstages.plugin`` name these in ``from_function``. The names of the arguments
that a function is called with stand in ``called_with``.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llmstages.core import file_components
from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Rules
from llmstages.text import environments

SHOWN = 60  # characters of a value in a message


class FunctionReward:
    """A reward that is a function ``score(prompts, completions, rows)``."""

    @dc.dataclass(frozen=True)
    class Config:
        weight: float = option(1.0, "weight in the sum of rewards; 0 only logs it")

    version = "1"
    called_with = ("prompts", "completions", "rows")
    function: ClassVar[Callable[..., Any]]

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(
        self, prompts: Sequence[Any], completions: Sequence[str], rows: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """The scores of the function, counted."""
        scores = list(file_components.call(self.function, prompts, completions, rows))
        if len(scores) != len(completions):
            raise StageError(
                f"the reward {type(self).__name__} gave {len(scores)} scores for "
                f"{len(completions)} completions; it must give one for each"
            )
        return [float(score) for score in scores]


class FunctionTool:
    """A tool that is a function ``tool(argument)``, which returns a text."""

    @dc.dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    version = "1"
    called_with = ("argument",)
    function: ClassVar[Callable[..., Any]]

    def __init__(self, config: Config) -> None:
        self.config = config

    def open(self, folder: Path) -> None:
        """A function needs nothing of the tools artifact."""

    def __call__(self, argument: str) -> str:
        """The result as text."""
        return str(self.function(argument))


class FunctionEnvironment:
    """An environment that a function makes, or a class that knows nothing of components."""

    @dc.dataclass(frozen=True)
    class Config:
        settings: dict[str, Any] = option(
            help="keyword arguments of what makes the environment", factory=dict
        )

    version = "1"
    called_with = ()
    function: ClassVar[Callable[..., Any]]

    def __init__(self, config: Config) -> None:
        self.config = config
        try:
            self.environment = type(self).function(**config.settings)
        except Exception as error:  # it is foreign code
            raise StageError(
                f"the environment {type(self).__name__} cannot be made with settings="
                f"{dict(config.settings)}: {type(error).__name__}: {error}"
            ) from error

    def reset(self, seed: int) -> Any:
        """The first observation."""
        return environments.reset(self.environment, seed)

    def step(self, action: str) -> Any:
        """What follows a text."""
        return self.environment.step(action)


class FunctionFilter(Rules):
    """A filter that is a function ``keep(document)``: a document stays where it is true."""

    @dc.dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    version = "1"
    called_with = ("document",)
    function: ClassVar[Callable[..., Any]]

    def rules(self, document: Document) -> Iterator[Check]:
        """One rule with the name of the function: 1 keeps a document, 0 drops it."""
        keeps = file_components.call(self.function, document)
        if type(keeps).__name__ not in ("bool", "bool_"):
            raise StageError(
                f"the filter {type(self).__name__} returned {str(keeps)[:SHOWN]!r}, of the type "
                f"{type(keeps).__name__}; a filter answers True (keep) or False. What edits texts "
                "is a filter of kind edit (docs/plugins.md)"
            )
        yield Check(type(self).__name__, float(keeps), least=1.0)


class FunctionGrader:
    """A grader that is a function ``is_right(reply, problem)``."""

    @dc.dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    version = "1"
    called_with = ("reply", "problem")
    function: ClassVar[Callable[..., Any]]

    def __init__(self, config: Config) -> None:
        self.config = config

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool | None]:
        """What the function returns for each reply."""
        return [
            file_components.call(self.function, reply, row)
            for reply, row in zip(replies, rows, strict=True)
        ]


def class_of(base: type, function: Callable[..., Any]) -> type:
    """A subclass of one of these classes for a function."""
    return type(base.__name__, (base,), {"function": staticmethod(function)})
