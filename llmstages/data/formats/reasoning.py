"""What becomes of the reasoning before an answer: a field, part of the text, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llmstages.data.formats.turns import Message

REASONING = ("keep", "split", "inline", "drop")
REASONING_HELP = (
    "thinking before answers: keep it as a field (reasoning_content), which the chat templates of "
    "reasoning models write; split also makes a field of <think> tags in the text; inline writes "
    "the field into the text as <think> tags; drop leaves both out and counts them"
)
FIELD = "reasoning_content"
THINKING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def treat_reasoning(
    messages: Sequence[Message], choice: str, left_out: Counter[str]
) -> list[Message]:
    """The messages with their reasoning as chosen.

    Args:
        messages: one dialogue.
        choice: one of REASONING.
        left_out: counts the reasoning that is dropped.
    """
    return [
        _treat(turn, choice, left_out) if turn["role"] == "assistant" else turn for turn in messages
    ]


def _treat(turn: Message, choice: str, left_out: Counter[str]) -> Message:
    if choice in ("split", "drop"):
        turn = _split(turn)
    thought = turn.get(FIELD)
    if not thought or choice in ("keep", "split"):
        return turn
    without = {key: value for key, value in turn.items() if key != FIELD}
    if choice == "inline":
        without["content"] = f"<think>\n{thought}\n</think>\n\n{turn['content']}"
    else:
        left_out["reasoning of answers"] += 1
    return without


def _split(turn: Message) -> Message:
    """The turn with the <think> block at the beginning of its text as a field."""
    match = THINKING.match(turn["content"])
    if not match:
        return turn
    parts = (turn.get(FIELD, ""), match[1].strip())
    thought = "\n".join(part for part in parts if part)
    answer = {**turn, "content": turn["content"][match.end() :]}
    return {**answer, FIELD: thought} if thought else answer
