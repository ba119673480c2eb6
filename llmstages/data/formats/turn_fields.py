"""The fields of a turn beside its role and content: used, counted by name, or refused.

What changes the meaning of a turn is never passed over: a mark that an answer is not to be trained
on is honored, media are refused, and a field that nobody knows is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from llmstages.data.formats.errors import SHOWN, InvalidRow

# Whether an answer is trained on: OpenAI and OpenChat (weight), axolotl (train, training), ms-swift
# and xtuner (loss), others. 1 and true mean yes.
LOSS_MARKS = (
    "weight",
    "loss",
    "loss_weight",
    "loss_mask",
    "train",
    "training",
    "trainable",
    "train_on_turn",
)
# Tools disagree whether 1 hides a turn from the loss or shows it.
UNCLEAR_MARKS = ("mask", "masked", "is_masked", "train_detail", "training_detail")
MEDIA = ("images", "image", "image_url", "audio", "audios", "video", "videos", "pixel_values")
READ = frozenset(
    (
        "role",
        "from",
        "content",
        "value",
        "name",
        "refusal",
        "tool",
        "tools",
        "tool_calls",
        "function_call",
        "tool_call_id",
        "reasoning_content",
        "reasoning",
        "thinking",
    )
)
# Say nothing about what is trained.
BOOKKEEPING = frozenset(
    (
        "id",
        "index",
        "turn",
        "turn_id",
        "message_id",
        "type",
        "created",
        "created_at",
        "timestamp",
        "date",
        "model",
        "lang",
        "language",
        "tokens",
        "num_tokens",
        "token_count",
    )
)
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


def check_fields(turn: Mapping[str, Any], number: int, left_out: Counter[str]) -> None:
    """Count the fields that are not read. Raises InvalidRow for media and unclear marks."""
    refuse_media(turn, f"turn {number}")
    for name, value in turn.items():
        is_known = name in READ or name in BOOKKEEPING or name in LOSS_MARKS
        if is_known or name in MEDIA or _is_empty(value):
            continue
        if name in UNCLEAR_MARKS:
            raise InvalidRow(
                "loss_mark",
                f"turn {number} has {name}={str(value)[:SHOWN]}, which means one thing in one tool "
                "and another in the next; write weight: 0 for an answer not to be trained on",
            )
        left_out[f"fields {name!r} of turns"] += 1


def refuse_media(row: Mapping[str, Any], what: str) -> None:
    """Raise InvalidRow if a row or a turn has images, audio or video: text alone would mislead."""
    for name in MEDIA:
        if not _is_empty(row.get(name)):
            raise InvalidRow("media", f"{what} has {name}; only text can be used")


def trains(turn: Mapping[str, Any], number: int) -> bool | None:
    """Whether an answer is to be trained on; None if nothing says so.

    Raises InvalidRow for a share between 0 and 1, and for marks that contradict each other.
    """
    marks: dict[str, bool] = {}
    for name in LOSS_MARKS:
        value = turn.get(name)
        if _is_empty(value):
            continue
        text = str(value).strip().lower()
        if text not in (*YES, *NO):
            raise InvalidRow(
                "loss_mark",
                f"turn {number} has {name}={str(value)[:SHOWN]}; an answer is trained on (1, true) "
                "or not (0, false)",
            )
        marks[name] = text in YES
    if len(set(marks.values())) > 1:
        raise InvalidRow("loss_mark", f"the marks of turn {number} contradict each other: {marks}")
    return next(iter(marks.values()), None)


def _is_empty(value: Any) -> bool:
    """Whether a field says nothing, such as those that Arrow adds to every struct."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)
