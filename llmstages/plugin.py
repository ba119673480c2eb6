"""The public API of plugin authors, on one page. The rest of the core may move.

A stage fills a slot of a run (``rl=mine``). A component is a smaller plugin that a stage is made
of: a filter, an extractor, a reward, a grader, a tool, an index, an evaluator. Both are classes
that a package registers by an entry point, and both are checked against these contracts when they
are loaded:

    [project.entry-points."llmstages.stages"]     "rl.mine" = "my_package:Mine"
    [project.entry-points."llmstages.rewards"]    shortness = "my_package:Shortness"

Every component has a frozen dataclass ``Config`` of options, a ``version`` (raise it when new
code gives new results) and takes its config when it is made. docs/plugins.md has five worked
examples, ``llmstages.testing`` checks a plugin, ``llmstages new plugin NAME`` writes a package to
start from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from llmstages.core.artifacts import ArtifactKind
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, Progress, Stage, option
from llmstages.data.filtering import Check, Document, Drop, Edit, Rules, Signatures, Verdict
from llmstages.data.function_components import (
    FunctionEnvironment,
    FunctionFilter,
    FunctionGrader,
    FunctionReward,
    FunctionTool,
    class_of,
)
from llmstages.data.passages import Page, Passage
from llmstages.text.messages import Message, message

__all__ = [
    "Artifact",
    "ArtifactKind",
    "Check",
    "Component",
    "Context",
    "Document",
    "Drop",
    "Edit",
    "Environment",
    "Evaluator",
    "Extractor",
    "Filter",
    "Grader",
    "GroupFilter",
    "Index",
    "Message",
    "Page",
    "Passage",
    "Progress",
    "Reward",
    "Rules",
    "Signatures",
    "Stage",
    "StageError",
    "Tool",
    "Verdict",
    "message",
    "option",
]


class Component(Protocol):
    """What all components have in common."""

    Config: ClassVar[type]
    version: ClassVar[str]

    def __init__(self, config: Any) -> None: ...


class Filter(Protocol):
    """A filter of the corpus: keeps, drops or edits documents (group ``llmstages.filters``).

    Most filters are a list of rules: inherit ``Rules`` and yield ``Check``s
    .

    Attributes:
        kind: "judge" (drops), "edit" (changes texts), or "group" (compares documents: GroupFilter).
    """

    Config: ClassVar[type]
    version: ClassVar[str]
    kind: ClassVar[str]

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        """One verdict a document, in order: None keeps it, or a Drop, or an Edit.

        Batches go to several processes, so nothing may be remembered from one batch to the next.
        """
        ...

    @staticmethod
    def variant_for(cls: type) -> type:
        """A filter of kind "group" keeps another contract."""
        return GroupFilter if getattr(cls, "kind", "") == "group" else Filter

    @staticmethod
    def from_function(function: Callable[..., Any]) -> type:
        """``./my_filter.py:keep`` is a filter: a document stays where keep(document) is true."""
        return class_of(FunctionFilter, function)


class GroupFilter(Protocol):
    """A filter that compares documents with each other, such as a search for duplicates."""

    Config: ClassVar[type]
    version: ClassVar[str]
    kind: ClassVar[str]

    def sign(self, documents: Sequence[Document]) -> Sequence[bytes]:
        """What must be remembered of each document: bytes of one length. Runs in many processes."""
        ...

    def compare(self, signed: Signatures) -> Mapping[int, Any]:
        """Row -> the Drop of each document that goes. Runs once, over all signatures."""
        ...


class Extractor(Protocol):
    """Takes the text out of a page (group ``llmstages.extractors``)."""

    Config: ClassVar[type]
    version: ClassVar[str]

    def extract(self, source: str, url: str) -> str:
        """The text of an HTML source; "" where there is none. May raise: the page is dropped."""
        ...


class Reward(Protocol):
    """Scores completions in RL (group ``llmstages.rewards``). Its Config has a ``weight``.

    Optional attributes: ``needs``, the kind of artifact that the reward opens ("reward_model"),
    and then a method ``open(artifact)``, called once before the first score.

    Example:
        def score(self, prompts, completions, rows):
            return [1.0 if answer in text else 0.0
                    for text, answer in zip(completions, rows["answer"])]
    """

    Config: ClassVar[type]
    version: ClassVar[str]
    required_options = ("weight",)

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        completions: Sequence[str],
        rows: Mapping[str, Sequence[Any]],
    ) -> Sequence[float | None]:
        """One finite number a completion, in order; None where the reward abstains.

        What it abstains from is not scored 0: without any score an answer does not train.

        Args:
            prompts: the messages before each completion.
            completions: what the model wrote, without control tokens.
            rows: the columns of the problems (``answer``, ``group``, ``task``, ``meta`` and any of
                their own), one value a completion; the same under every rl variant.
        """
        ...

    @staticmethod
    def from_function(function: Callable[..., Any]) -> type:
        """``./my_reward.py:score``, called as score(prompts, completions, rows), has weight 1."""
        return class_of(FunctionReward, function)


class Grader(Protocol):
    """Decides whether a reply gives the answer of its problem (group ``llmstages.graders``).

    Problems name theirs (``problems.graders.mine=mine``), and every reward, probe and evaluation
    of these problems then asks it.
    """

    Config: ClassVar[type]
    version: ClassVar[str]

    def grade(
        self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> Sequence[bool | None]:
        """One verdict a reply, in order; None where it cannot be decided, which pays nothing.

        Args:
            replies: what the model wrote, without control tokens.
            rows: the problem of each: ``answer``, ``aliases`` (other answers that are right; may
                be absent), ``prompt`` (messages), and its other columns.
        """
        ...

    @staticmethod
    def from_function(function: Callable[..., Any]) -> type:
        """``./my_grader.py:is_right``, called as is_right(reply, problem)."""
        return class_of(FunctionGrader, function)


class Tool(Protocol):
    """What a model may call (group ``llmstages.tools``).

    Optional attributes: ``marks``, the pair of control tokens around a call in our own chat
    templates; by default ``<NAME_START>`` and ``<NAME_END>``. ``sources``, a list of where the last
    result comes from (dictionaries that JSON can say), which tools.search_tokens saves with the
    dialogue. Optional method ``call_after(argument, earlier)``, called instead of the tool itself:
    earlier holds the arguments of the calls before it in the conversation. Optional method
    ``propose(question, answer)``: arguments of calls that may help, for ``tools=augment``.
    """

    Config: ClassVar[type]
    version: ClassVar[str]

    def open(self, folder: Path) -> None:
        """Get ready to be called. folder: the tools artifact, which may hold an index."""
        ...

    def __call__(self, argument: str) -> str:
        """The result as text. An exception becomes the text ``error: ...`` that the model reads."""
        ...

    @staticmethod
    def from_function(function: Callable[..., Any]) -> type:
        """``./my_tool.py:look_up`` is a tool that answers with the text of look_up(argument)."""
        return class_of(FunctionTool, function)


class Environment(Protocol):
    """Answers what a model says, turn by turn, and pays for it (group ``llmstages.environments``).

    It has the shape of OpenEnv and Gymnasium. Results may be objects or dictionaries with
    ``observation`` (a text), ``reward`` (None: 0) and ``done``, the tuples of Gymnasium, or plain
    texts. A class in a file needs no Config: what it is made with are its ``settings``.

    Example:
        def reset(self, seed):
            return "Say a word with an e."
        def step(self, action):
            return {"observation": "", "reward": float("e" in action), "done": True}
    """

    def reset(self, seed: int) -> Any:
        """The first observation, which follows from the seed: the prompt of the problem."""
        ...

    def step(self, action: str) -> Any:
        """What follows the text of the model. The observation is its next turn of the user."""
        ...

    @staticmethod
    def from_function(function: Callable[..., Any]) -> type:
        """``./my_env.py:make``: make(**settings) returns the environment."""
        return class_of(FunctionEnvironment, function)

    @staticmethod
    def from_class(cls: type) -> type:
        """``./my_env.py:Guess``, a class without Config, is made as Guess(**settings)."""
        return class_of(FunctionEnvironment, cls)


class Index(Protocol):
    """Finds passages of pages by the words of a query (group ``llmstages.indexes``).

    One instance builds a folder; another, perhaps in another process, opens it and is asked.
    """

    Config: ClassVar[type]
    version: ClassVar[str]

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Write the index. passages: may be more than memory holds, and come once."""
        ...

    def open(self, folder: Path) -> None:
        """Get ready to be asked, also where the folder cannot be written to."""
        ...

    def find(self, query: str, limit: int) -> Sequence[Passage]:
        """At most ``limit`` passages, the best first; none where nothing matches.

        query: any text, as a model writes it; it never raises.
        """
        ...


class Evaluator(Protocol):
    """Asks a model questions and counts what comes back (group ``llmstages.evaluators``)."""

    Config: ClassVar[type]
    version: ClassVar[str]

    def score(
        self,
        model: Any,
        tokenizer: Any,
        questions: Sequence[Mapping[str, Any]],
        tools: Mapping[str, Callable[[str], str]] | None,
        advance: Callable[[float], None],
    ) -> tuple[
        Mapping[str, Mapping[str, Mapping[str, float]]],
        Sequence[Mapping[str, Any]],
        Mapping[str, float],
    ]:
        """Returns (scores, answers, facts).

        Args:
            model, tokenizer: of transformers, ready to generate.
            questions: rows of a problems artifact: prompt (messages), answer, task, group, role
                ("test", "probe", "threshold"), style ("chat"; "plain": continued without chat
                tokens), meta.
            tools: name -> tool, or None where the model has none.
            advance: call it with the number of questions that are done.

        Returns:
            scores: task -> group -> metric -> value.
            answers: rows of prompt, answer and task, for the page.
            facts: further numbers about the model, by name.
        """
        ...
