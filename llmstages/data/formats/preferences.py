"""Pairs of a better and a worse answer to the same question."""

from __future__ import annotations

from collections import Counter

from llmstages.data.formats.dialogues import ASKED, TURNS, checked
from llmstages.data.formats.turns import InvalidRow, Message, Row, as_messages
from llmstages.text.messages import message


def preference(row: Row, left_out: Counter[str] | None = None) -> dict[str, list[Message]]:
    """{prompt, chosen, rejected} of a row: HH texts, prompt with two answers, or two whole conversations.

    What both conversations begin with is the prompt; chosen and rejected are what follows.
    """
    left_out = Counter() if left_out is None else left_out
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise InvalidRow(
                "format", f"the field {name} is missing; the row has {', '.join(map(str, row))}"
            )
    before = _asked(row, left_out)
    sides = []
    for name in ("chosen", "rejected"):
        said = as_messages(row[name], "assistant", left_out)
        whole = (
            bool(said) and said[0]["role"] != "assistant"
        )  # UltraFeedback repeats the prompt in both
        sides.append(said if whole else before + said)
    chosen, rejected = (checked(side, left_out) for side in sides)
    if chosen == rejected:
        raise InvalidRow("equal", "chosen and rejected are the same")
    shared = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b),
        min(len(chosen), len(rejected)),
    )
    while shared and (
        shared == min(len(chosen), len(rejected))
        or chosen[shared]["role"] != "assistant"
        or rejected[shared]["role"] != "assistant"
    ):
        shared -= 1
    if not any(turn["role"] == "user" for turn in chosen[:shared]):
        raise InvalidRow("no_question", "chosen and rejected do not answer the same question")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _asked(row: Row, left_out: Counter[str]) -> list[Message]:
    """The prompt of a preference row, [] where the answers hold it."""
    system = (
        [message("system", row["system"])]
        if isinstance(row.get("system"), str) and row["system"].strip()
        else []
    )
    name = next((name for name in (*TURNS, *ASKED) if row.get(name)), "")
    if not name:
        return system
    found = as_messages(row[name], "user", left_out)
    if name == "instruction" and row.get("input"):
        found = [message("user", f"{row['instruction']}\n{row['input']}")]
    return system + found
