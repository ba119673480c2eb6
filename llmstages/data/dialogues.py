"""Dialogues on their way into training: drawn from their sources, rendered, and made to fit a row."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.text import chat_format
from llmstages.text.messages import Message, message
from llmstages.text.render import Rendered, render

POLICIES = ("drop", "split", "truncate", "error")


class Dialogue(NamedTuple):
    """Messages, and where they are from: ``STEP:ROW``. plain: rendered as running text."""

    name: str
    messages: Sequence[Message]
    plain: bool = False


@dataclass
class Prepared:
    """What a step trains on, before step 1: rendered rows, their names, the gates, counts, and control tokens the model does not know yet."""

    tokenizer: Any
    rows: list[Rendered]
    names: list[str]
    gates: list[dict[str, Any]]
    facts: dict[str, int] = field(default_factory=dict)
    new_tokens: list[str] = field(default_factory=list)


def load(
    sources: Sequence[Artifact], weights: Mapping[str, float], rng: random.Random
) -> list[Dialogue]:
    """The dialogues of all sources, each source as often as its weight says (training.share_of)."""
    from llmstages.data.dialogues import share_of

    out: list[Dialogue] = []
    for source in sources:
        table = tables.load(source.path / "data")
        plain = "render" in table.column_names and set(table["render"]) == {"plain"}
        messages = list(table["messages"])
        if "tools" in table.column_names:
            messages = [
                with_tools(one, tools) for one, tools in zip(messages, table["tools"], strict=True)
            ]
        out += [
            Dialogue(f"{source.name}:{i}", messages[i], plain)
            for i in share_of(len(messages), weights.get(source.name, 1.0), rng).tolist()
        ]
    return out


def with_tools(messages: Sequence[Message], tools: str) -> Sequence[Message]:
    """The messages with the schemas of their tools (JSON text, "" for none) in the system turn, one of their own where there is none."""
    if not tools:
        return messages
    first = [*messages[:1]] if messages and messages[0]["role"] == "system" else []
    return [
        {**(first[0] if first else message("system", "")), "tools": tools},
        *messages[len(first) :],
    ]


def render_dialogues(tokenizer: Any, dialogues: Sequence[Dialogue]) -> list[Rendered]:
    """Rendered in order: as running text where they say so, else as chat."""
    try:
        done = {
            plain: iter(
                (chat_format.render_plain if plain else render)(
                    tokenizer, [d.messages for d in dialogues if d.plain == plain]
                )
            )
            for plain in (False, True)
        }
    except StageError as error:
        bad = [
            (d.name, told)
            for d in dialogues
            if not d.plain and (told := _refused(tokenizer, d.messages))
        ]
        if not bad:
            raise
        names = ", ".join(name for name, _ in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise StageError(
            f"{len(bad)} of {len(dialogues)} dialogues cannot be rendered ({names}). {bad[0][0]}: {bad[0][1]}"
        ) from error
    return [next(done[d.plain]) for d in dialogues]


def _refused(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Why one dialogue cannot be rendered; "" where it can."""
    try:
        render(tokenizer, [messages])
    except StageError as error:
        return str(error)
    return ""


def fit_length(
    dialogues: Sequence[Dialogue], tokenizer: Any, row: int, policy: str, ctx: Context
) -> tuple[list[Dialogue], list[Rendered], list[str]]:
    """(dialogues, their tokens, names of those left out) with none longer than ``row`` tokens.

    drop: left out. split: cut between exchanges, the system turn before each part; an exchange too long for a row is left
    out. truncate: the end is cut off. error: StageError. What was done is told with counts and examples.
    """
    whole = render_dialogues(tokenizer, dialogues)
    long = [d.name for d, done in zip(dialogues, whole, strict=True) if len(done.ids) > row]
    if not long:
        return list(dialogues), whole, []
    some = f"{len(long)} of {len(whole)} dialogues are longer than max_length={row} tokens ({', '.join(long[:3])}{', ...' if len(long) > 3 else ''})"
    if policy == "error":
        raise StageError(
            f"{ctx.step}: {some}; raise {ctx.step}.max_length or choose {ctx.step}.overlong=drop, split or truncate"
        )
    kept: list[tuple[Dialogue, Rendered]] = []
    left: list[str] = []
    parts = 0
    for d, done in zip(dialogues, whole, strict=True):
        if len(done.ids) <= row:
            kept.append((d, done))
        elif policy == "truncate":
            kept.append((d, Rendered(done.ids[:row], done.supervised[:row])))
        elif policy == "split":
            cut = split(d, tokenizer, row)
            kept += cut
            parts += len(cut)
            left += [] if cut else [d.name]
        else:
            left.append(d.name)
    what = {
        "drop": "dropped",
        "truncate": "cut at their end",
        "split": f"split into {parts}, {len(left)} of them dropped whole",
    }[policy]
    ctx.say(f"{ctx.step}: {some}: {what} (overlong={policy})")
    return [d for d, _ in kept], [done for _, done in kept], left


def split(dialogue: Dialogue, tokenizer: Any, row: int) -> list[tuple[Dialogue, Rendered]]:
    """Parts of whole exchanges (a user turn and what follows it), as long as fit; exchanges too long alone are left out."""
    system = [m for m in dialogue.messages[:1] if m["role"] == "system"]
    exchanges: list[list[Message]] = []
    for m in dialogue.messages[len(system) :]:
        if m["role"] == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(m)
    out: list[tuple[Dialogue, Rendered]] = []
    part: list[Message] = []
    fitting: Rendered | None = None

    def close() -> None:
        if fitting:
            out.append(
                (
                    Dialogue(f"{dialogue.name}/{len(out) + 1}", [*system, *part], dialogue.plain),
                    fitting,
                )
            )

    for exchange in exchanges:
        done = render_dialogues(
            tokenizer, [Dialogue("", [*system, *part, *exchange], dialogue.plain)]
        )[0]
        if len(done.ids) <= row:
            part, fitting = [*part, *exchange], done
            continue
        close()
        done = render_dialogues(tokenizer, [Dialogue("", [*system, *exchange], dialogue.plain)])[0]
        part, fitting = (list(exchange), done) if len(done.ids) <= row else ([], None)
    close()
    return out


def last_question(messages: Sequence[Message]) -> int:
    """How many messages there are up to the last question, it included; 0 where nobody asks."""
    return max((i + 1 for i, m in enumerate(messages) if m["role"] == "user"), default=0)


def last_answers(
    dialogues: Sequence[Dialogue], rows: Sequence[Rendered], tokenizer: Any
) -> list[Rendered]:
    """The rows with loss only on what follows the last question: calls, and the answer. Running text stays as it is."""
    asked = {
        i: last_question(d.messages)
        for i, d in enumerate(dialogues)
        if not d.plain and last_question(d.messages)
    }
    begins = dict(
        zip(
            asked,
            map(
                len,
                chat_format.prompt_ids(
                    tokenizer, [dialogues[i].messages[:end] for i, end in asked.items()]
                ),
            ),
            strict=True,
        )
    )
    return [
        Rendered(row.ids, [on and at >= begins.get(i, 0) for at, on in enumerate(row.supervised)])
        for i, row in enumerate(rows)
    ]


def share_of(count: int, weight: float, rng: random.Random) -> Any:
    """Indices of ``count`` items, ``weight`` times over: a random part below 1, repeats above."""
    import numpy as np

    whole, part = int(weight), weight - int(weight)
    return np.concatenate(
        [
            np.tile(np.arange(count), whole),
            np.array(rng.sample(range(count), round(part * count)), np.int64),
        ]
    )
