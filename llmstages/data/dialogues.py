"""Dialogues on their way into training: drawn from sources, rendered, fitted into a length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmstages.core.digest import sha256
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
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
POLICIES = ("drop", "split", "truncate", "error")


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
    by_question: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        asked = [turn["content"] for turn in row["messages"] if turn["role"] == "user"]
        by_question.setdefault(str(asked[0]).strip().casefold() if asked else "", []).append(row)
    wanted = max(1, round(fraction * len(rows)))
    order = sorted(by_question, key=lambda question: sha256(question))
    count = 0
    for question in order:
        chosen = count < wanted and count + len(by_question[question]) < len(rows)
        for row in by_question[question]:
            row["split"] = "test" if chosen else "train"
        if chosen:
            count += len(by_question[question])
    return count


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
            f"({_examples([name for name, _ in failures])}). {name}: {reason}"
        ) from error
    return [next(rows[kind]) for kind in kinds]


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
        ends = _ends_of_answers(dialogue.messages)
        # Nothing follows the last answer, so nothing can change it: most dialogues have one alone.
        may_change = not dialogue.plain and ends != [len(dialogue.messages)]
        if not may_change or not changed_by_later_turns(tokenizer, dialogue.messages):
            prepared.append(dialogue)
            continue
        divided.append(dialogue.name)
        for part, end in enumerate(ends, 1):
            name = f"{dialogue.name}/{part}"
            prepared.append(Dialogue(name, dialogue.messages[:end], one_answer=True))
    return prepared, divided


def _ends_of_answers(messages: Sequence[Message]) -> list[int]:
    """The number of messages up to each answer; turns of the assistant in a row are one answer."""
    ends = []
    for index, turn in enumerate(messages):
        following = messages[index + 1 : index + 2]
        if turn["role"] == "assistant" and not (following and following[0]["role"] == "assistant"):
            ends.append(index + 1)
    return ends


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


def _examples(names: Sequence[str]) -> str:
    """The first three names, with an ellipsis if there are more."""
    listed = ", ".join(names[:3])
    return f"{listed}, ..." if len(names) > 3 else listed


def fit_length(
    dialogues: Sequence[Dialogue], tokenizer: Any, max_length: int, policy: str, ctx: Context
) -> tuple[list[Dialogue], list[Rendered], list[str]]:
    """Make all dialogues fit into ``max_length`` tokens, and report what was done with examples.

    policy: what happens to longer ones.
        drop: they are left out.
        split: they are cut between exchanges, each part with the system turn; an exchange that is
            too long alone is left out.
        truncate: their end is cut off.
        error: StageError.

    Returns:
        (dialogues, their rows, names of the dialogues left out).
    """
    rows = render_dialogues(tokenizer, dialogues)
    long = [
        dialogue.name
        for dialogue, row in zip(dialogues, rows, strict=True)
        if len(row.ids) > max_length
    ]
    if not long:
        return list(dialogues), rows, []
    summary = (
        f"{len(long)} of {len(rows)} dialogues are longer than max_length={max_length} tokens "
        f"({_examples(long)})"
    )
    if policy == "error":
        raise StageError(
            f"{ctx.step}: {summary}; raise {ctx.step}.max_length or choose "
            f"{ctx.step}.overlong=drop, split or truncate"
        )
    kept: list[tuple[Dialogue, Rendered]] = []
    dropped: list[str] = []
    split_parts = 0
    for dialogue, row in zip(dialogues, rows, strict=True):
        if len(row.ids) <= max_length:
            kept.append((dialogue, row))
            continue
        parts = []
        if policy == "truncate":
            shorter = Rendered(row.ids[:max_length], row.supervised[:max_length])
            parts = [(dialogue, shorter)]
        elif policy == "split":
            parts = split(dialogue, tokenizer, max_length)
            split_parts += len(parts)
        kept += parts
        if not parts:
            dropped.append(dialogue.name)
    action = {
        "drop": "dropped",
        "truncate": "cut at their end",
        "split": f"split into {split_parts}, {len(dropped)} of them dropped whole",
    }[policy]
    ctx.say(f"{ctx.step}: {summary}: {action} (overlong={policy})")
    return [dialogue for dialogue, _ in kept], [row for _, row in kept], dropped


def split(dialogue: Dialogue, tokenizer: Any, max_length: int) -> list[tuple[Dialogue, Rendered]]:
    """Parts of a dialogue, each as many whole exchanges as fit into ``max_length`` tokens.

    An exchange is a user turn and what follows it. The system turn begins each part. Exchanges
    that are too long alone are left out, and so is a dialogue of which one answer is trained.
    """
    if dialogue.one_answer:
        return []
    system, exchanges = _exchanges(dialogue.messages)
    parts: list[tuple[Dialogue, Rendered]] = []
    current: list[Message] = []
    current_row: Rendered | None = None

    def attempt(messages: Sequence[Message]) -> Rendered | None:
        candidate = Dialogue("", [*system, *messages], dialogue.plain)
        row = render_dialogues(tokenizer, [candidate])[0]
        return row if len(row.ids) <= max_length else None

    def close() -> None:
        if current_row:
            name = f"{dialogue.name}/{len(parts) + 1}"
            part = Dialogue(name, [*system, *current], dialogue.plain)
            parts.append((part, current_row))

    for exchange in exchanges:
        longer_row = attempt([*current, *exchange])
        if longer_row:
            current += exchange
            current_row = longer_row
            continue
        close()
        current_row = attempt(exchange)
        current = list(exchange) if current_row else []
    close()
    return parts


def _exchanges(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """(the system turn if there is one, exchanges)."""
    system = [turn for turn in messages[:1] if turn["role"] == "system"]
    exchanges: list[list[Message]] = []
    for turn in messages[len(system) :]:
        if turn["role"] == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(turn)
    return system, exchanges


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
