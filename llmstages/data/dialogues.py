"""Dialogues on their way into training: drawn from sources, rendered, fitted into a length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.data import tables
from llmstages.data.splits import choose_tests, comparable
from llmstages.text import chat_format
from llmstages.text.messages import Message, with_tools
from llmstages.text.render import (
    Rendered,
    changed_by_later_turns,
    render,
    render_answers,
)

TEST_FRACTION_HELP = (
    "share of the conversations kept out of training, to measure with (split = test)"
)


class Dialogue(NamedTuple):
    """Messages and where they come from.

    Attributes:
        name: ``STEP:ROW``, with ``/PART`` for a part of a dialogue.
        messages: the turns in order.
        plain: rendered as running text instead of as a chat.
        one_answer: only the last answer carries loss, and what is before it is rendered as the
            prompt of generation.
    """

    name: str
    messages: Sequence[Message]
    plain: bool = False
    one_answer: bool = False


@dataclass
class Prepared:
    """What a step is going to train on.

    Attributes:
        tokenizer: the tokenizer with all control tokens that training needs.
        rows: the rendered rows.
        names: the name of each row.
        checks: the checks of the rows (train/checks.py).
        facts: counts by name.
        new_tokens: control tokens that the model does not know yet.
    """

    tokenizer: Any
    rows: list[Rendered]
    names: list[str]
    checks: list[Any]
    facts: dict[str, int] = field(default_factory=dict)
    new_tokens: list[str] = field(default_factory=list)


def load(
    sources: Sequence[Artifact], weights: Mapping[str, float], rng: random.Random
) -> list[Dialogue]:
    """The dialogues of all sources to train on, each source as often as its weight says.

    Rows of the split "test" are left out.

    Args:
        weights: step name -> weight (see share_of); 1 for a source without one.
    """
    dialogues: list[Dialogue] = []
    for source in sources:
        rows = _rows(source, test=False)
        indices = share_of(len(rows), weights.get(source.name, 1.0), rng)
        dialogues += [rows[i] for i in indices.tolist()]
    return dialogues


def load_test(sources: Sequence[Artifact]) -> list[Dialogue]:
    """The dialogues of the split "test": those that are kept out of training."""
    return [dialogue for source in sources for dialogue in _rows(source, test=True)]


def _rows(source: Artifact, test: bool) -> list[Dialogue]:
    """The dialogues of a source that are for tests, or those that are not."""
    table = tables.load(source.path / "data")
    plain = "render" in table.column_names and set(table["render"]) == {"plain"}
    messages = list(table["messages"])
    if "tools" in table.column_names:
        pairs = zip(messages, table["tools"], strict=True)
        messages = [with_tools(turns, tools) for turns, tools in pairs]
    splits = list(table["split"]) if "split" in table.column_names else [""] * len(messages)
    rows = []
    for number, (turns, split) in enumerate(zip(messages, splits, strict=True)):
        if (split == "test") == test:
            rows.append(Dialogue(f"{source.name}:{number}", turns, plain))
    return rows


def mark_test_rows(rows: Sequence[dict[str, Any]], fraction: float) -> int:
    """Give each row of dialogues a ``split``: "train", or "test" for about ``fraction`` of them.

    Rows with the same first question share a split, so that no test question is trained on. The
    choice follows from the questions alone. At least one is chosen, unless all are the same.
    Returns the number of test rows.
    """
    keys = []
    for row in rows:
        asked = [turn["content"] for turn in row["messages"] if turn["role"] == "user"]
        keys.append(comparable(str(asked[0])) if asked else "")
    tests = choose_tests(keys, fraction)
    for row, is_test in zip(rows, tests, strict=True):
        row["split"] = "test" if is_test else "train"
    return sum(tests)


def render_dialogues(tokenizer: Any, dialogues: Sequence[Dialogue]) -> list[Rendered]:
    """The rows of dialogues, in order: plain ones as running text, the others as chats.

    Raises StageError that names the dialogues that cannot be rendered.
    """
    kinds = [_renderer_of(dialogue) for dialogue in dialogues]
    rows: dict[Any, Iterator[Rendered]] = {}
    try:
        # All of a kind at once, because a batch is much faster than one call per dialogue.
        for renderer in dict.fromkeys(kinds):
            chosen = [
                dialogue.messages
                for dialogue, kind in zip(dialogues, kinds, strict=True)
                if kind is renderer
            ]
            rows[renderer] = iter(renderer(tokenizer, chosen))
    except StageError as error:
        failures = _failures(tokenizer, dialogues)
        if not failures:
            raise
        name, reason = failures[0]
        raise StageError(
            f"{len(failures)} of {len(dialogues)} dialogues cannot be rendered "
            f"({some_names([name for name, _ in failures])}). {name}: {reason}"
        ) from error
    rendered = [next(rows[kind]) for kind in kinds]
    return _without_marked_answers(dialogues, rendered, tokenizer)


def _without_marked_answers(
    dialogues: Sequence[Dialogue], rows: Sequence[Rendered], tokenizer: Any
) -> list[Rendered]:
    """The rows without loss on the answers that their data marks so (``loss: False``)."""
    bounds: list[tuple[int, int]] = []  # (row, messages up to a bound of an answer), in pairs
    for index, dialogue in enumerate(dialogues):
        if dialogue.plain or not _has_marks(dialogue.messages):
            continue
        for start, end in _answers(dialogue.messages):
            if _has_marks(dialogue.messages[start:end]):
                bounds += [(index, start), (index, end)]
    if not bounds:
        return list(rows)
    beginnings = render(tokenizer, [dialogues[index].messages[:end] for index, end in bounds])
    masked = list(rows)
    for place in range(0, len(bounds), 2):
        index = bounds[place][0]
        row = masked[index]
        start, end = (
            chat_format.common_length(row.ids, beginning.ids)
            for beginning in beginnings[place : place + 2]
        )
        supervised = [on and not start <= at < end for at, on in enumerate(row.supervised)]
        masked[index] = Rendered(row.ids, supervised)
    return masked


def _has_marks(messages: Sequence[Message]) -> bool:
    """Whether an answer among the messages is not to be trained on."""
    return any(turn.get("loss") is False for turn in messages)


def _renderer_of(dialogue: Dialogue) -> Callable[..., list[Rendered]]:
    if dialogue.plain:
        return chat_format.render_plain
    return render_answers if dialogue.one_answer else render


def one_per_answer(
    dialogues: Sequence[Dialogue], tokenizer: Any
) -> tuple[list[Dialogue], list[str]]:
    """Dialogues that can be trained: one per answer where the template changes earlier answers.

    Such a template (Qwen3's drops earlier thinking) has no text in which all answers stand as the
    model gives them. So each answer becomes a dialogue of its own, after the prompt that the model
    would get for it.

    Returns:
        (all dialogues, names of those that were divided: NAME/1, NAME/2, ...).
    """
    prepared: list[Dialogue] = []
    divided: list[str] = []
    for dialogue in dialogues:
        answers = _answers(dialogue.messages)
        ends = [end for _, end in answers]
        # Nothing follows the last answer, so nothing can change it: most dialogues have one alone.
        may_change = not dialogue.plain and ends != [len(dialogue.messages)]
        if not may_change or not changed_by_later_turns(tokenizer, dialogue.messages):
            prepared.append(dialogue)
            continue
        divided.append(dialogue.name)
        for part, (start, end) in enumerate(answers, 1):
            if _has_marks(dialogue.messages[start:end]):
                continue
            name = f"{dialogue.name}/{part}"
            prepared.append(Dialogue(name, dialogue.messages[:end], one_answer=True))
    return prepared, divided


def _answers(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """(messages before, messages up to and including) each answer.

    Turns of the assistant in a row are one answer.
    """
    answers: list[tuple[int, int]] = []
    for index, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        if answers and answers[-1][1] == index:
            answers[-1] = (answers[-1][0], index + 1)
        else:
            answers.append((index, index + 1))
    return answers


def before_last_answer(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages without the turns of the assistant at their end."""
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    return messages[:end]


def _failures(tokenizer: Any, dialogues: Sequence[Dialogue]) -> list[tuple[str, str]]:
    """(name, reason) of each chat that cannot be rendered."""
    failures = []
    for dialogue in dialogues:
        if dialogue.plain:
            continue
        try:
            _renderer_of(dialogue)(tokenizer, [dialogue.messages])
        except StageError as error:
            failures.append((dialogue.name, str(error)))
    return failures


def some_names(names: Sequence[str]) -> str:
    """The first three names, with an ellipsis if there are more."""
    listed = ", ".join(names[:3])
    return f"{listed}, ..." if len(names) > 3 else listed


def last_question(messages: Sequence[Message]) -> int:
    """The number of messages up to and including the last user turn; 0 without a user turn."""
    for count in range(len(messages), 0, -1):
        if messages[count - 1]["role"] == "user":
            return count
    return 0


def last_answers(
    dialogues: Sequence[Dialogue], rows: Sequence[Rendered], tokenizer: Any
) -> list[Rendered]:
    """The rows with a loss only on what follows the last question: tool calls and the answer.

    Plain dialogues, and those without a question, stay as they are.
    """
    beginnings: dict[int, Dialogue] = {}
    for index, dialogue in enumerate(dialogues):
        count = last_question(dialogue.messages)
        if count and not dialogue.plain and not dialogue.one_answer:
            beginnings[index] = Dialogue(dialogue.name, dialogue.messages[:count])
    rendered = render_dialogues(tokenizer, list(beginnings.values()))
    masked = list(rows)
    for index, beginning in zip(beginnings, rendered, strict=True):
        row = rows[index]
        start = chat_format.common_length(row.ids, beginning.ids)
        supervised = [on and at >= start for at, on in enumerate(row.supervised)]
        masked[index] = Rendered(row.ids, supervised)
    return masked


def share_of(count: int, weight: float, rng: random.Random) -> Any:
    """Indices of ``count`` items, each ``weight`` times: the fraction of it for a random part.

    2.5 gives all items twice and half of them once more.
    """
    import numpy as np

    repeats = int(weight)
    fraction = weight - repeats
    whole = np.tile(np.arange(count), repeats)
    part = rng.sample(range(count), round(fraction * count))
    return np.concatenate([whole, np.array(part, np.int64)])
