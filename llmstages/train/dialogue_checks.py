"""Checks of dialogues as messages, before a template or tokenizer is involved (see checks.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from llmstages.core.stage import Context
from llmstages.data.dialogues import Dialogue
from llmstages.data.splits import comparable
from llmstages.text.messages import Message
from llmstages.text.templates import ROLES
from llmstages.train.checks import Check, check_none, check_share, enforce

CONTENT_NOT_TEXT = "content_not_text"
UNKNOWN_ROLES = "unknown_roles"
MIN_DIALOGUES = 50  # below it, shares of dialogues are not checked
MAX_REPEATED_SHARE = 0.2
MAX_RENDERED_SHARE = 0.01
MAX_DROPPED_SHARE = 0.5
WITHIN_WORDS = 8  # evaluation questions of so many words are also looked for within a turn
# Of the most common templates: a content with one of them was rendered before.
TEMPLATE_MARKS = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "[/INST]", "<|eot_id|>")

# What may follow what in a conversation; "" is the beginning, "call" an assistant's tool call.
NEXT_TURNS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant", "call"),
    "call": ("tool", "call", "assistant"),
    "tool": ("tool", "call", "assistant"),
    "assistant": ("user", "call"),
}


def check_dialogues(
    dialogues: Sequence[Dialogue], repeated: Sequence[str] | None = None
) -> list[Check]:
    """All checks that need the messages alone.

    Args:
        dialogues: of a data set.
        repeated: names of rows that equal an earlier one; None compares the dialogues.
    """
    return [
        check_none(
            "empty_dialogues",
            "dialogues without messages",
            _failing(dialogues, _is_empty),
            "drop rows without messages",
        ),
        check_none(
            CONTENT_NOT_TEXT,
            "dialogues with a turn whose content is not text",
            _failing(dialogues, _has_content_without_text),
            "a turn holds nothing or a number where its text should be: drop the row, or write "
            "the text",
        ),
        check_none(
            UNKNOWN_ROLES,
            "dialogues with a turn of an unknown role",
            _failing(dialogues, _has_unknown_role),
            f"the known roles are {', '.join(ROLES)}: rename the role, or drop the turn",
        ),
        check_none(
            "empty_turns",
            "dialogues with a turn without content",
            _failing(dialogues, _has_turn_without_content),
            "an empty answer teaches the model to say nothing: drop the row or the turn",
        ),
        check_none(
            "no_final_answer",
            "dialogues that do not end with an answer",
            _failing(dialogues, _ends_without_answer),
            "nothing is learned from a last turn that is not the assistant's: cut it off",
        ),
        check_none(
            "roles_out_of_order",
            "dialogues whose roles are out of order",
            _failing(dialogues, _is_out_of_order),
            "a system turn comes first if at all, then questions and answers alternate, and tool "
            "results follow a call: join or remove turns",
        ),
        check_none(
            "tool_results_without_call",
            "dialogues with a tool result before any call",
            _failing(dialogues, _has_result_without_call),
            "put the assistant's call (tool=NAME) before the result, or drop the result",
        ),
        check_share(
            "repeated_dialogues",
            "share of repeated dialogues",
            _repeated(dialogues) if repeated is None else repeated,
            len(dialogues),
            limit=MAX_REPEATED_SHARE,
            min_total=MIN_DIALOGUES,
            fix="a dialogue that is repeated many times is memorized: remove the copies, or raise "
            "the weight of a source where the repetition is intended",
        ),
        check_share(
            "template_marks_in_text",
            "share of dialogues that contain template marks",
            _failing(dialogues, _contains_template_marks),
            len(dialogues),
            limit=MAX_RENDERED_SHARE,
            min_total=MIN_DIALOGUES,
            fix="these texts were rendered with a template before and would be rendered twice: "
            "give the messages themselves",
        ),
    ]


def require_renderable(checks: Sequence[Check], ctx: Context) -> None:
    """Raise StageError at once if there are messages that no template can render."""
    # Jinja would fail too, but later and without naming the rows.
    for check in checks:
        if check.id in (CONTENT_NOT_TEXT, UNKNOWN_ROLES) and not check.passed:
            enforce(checks, ctx)


def check_leaks(dialogues: Sequence[Dialogue], questions: Iterable[str]) -> list[Check]:
    """Check that no evaluation question is among the user turns; without questions no check.

    A question counts as found if it is a whole turn, or, from ``WITHIN_WORDS`` words on, a part of
    one. Case and white space are ignored.
    """
    index = _QuestionIndex(questions)
    if not index.questions:
        return []
    leaking = [dialogue.name for dialogue in dialogues if _asks_any(dialogue.messages, index)]
    return [
        check_none(
            "evaluation_questions",
            "dialogues that contain an evaluation question",
            leaking,
            "the model would be measured on what it was taught: take these rows out",
        )
    ]


def check_left_out(dropped: Sequence[str], total: int, fix: str) -> Check:
    """Check how many of ``total`` dialogues were left out because they are too long."""
    return check_share(
        "dialogues_too_long",
        "share of dialogues that are too long",
        dropped,
        total,
        limit=MAX_DROPPED_SHARE,
        fix=f"most of the data would be left out: {fix}",
    )


def ordered(messages: Sequence[Message]) -> bool:
    """Whether the turns follow each other as in a conversation."""
    previous = ""
    for turn in messages:
        current = "call" if _is_call(turn) else turn["role"]
        if current not in NEXT_TURNS.get(previous, ()):
            return False
        previous = current
    return True


def _failing(
    dialogues: Sequence[Dialogue], is_bad: Callable[[Sequence[Message]], bool]
) -> list[str]:
    return [dialogue.name for dialogue in dialogues if is_bad(dialogue.messages)]


def _is_call(turn: Message) -> bool:
    return turn["role"] == "assistant" and bool(turn.get("tool"))


def _is_empty(messages: Sequence[Message]) -> bool:
    return not messages


def _has_content_without_text(messages: Sequence[Message]) -> bool:
    return any(not isinstance(turn["content"], str) for turn in messages)


def _has_unknown_role(messages: Sequence[Message]) -> bool:
    return any(turn["role"] not in ROLES for turn in messages)


def _has_turn_without_content(messages: Sequence[Message]) -> bool:
    for turn in messages:
        # A call may have no argument, and a system turn may consist of tool schemas alone.
        if not str(turn["content"]).strip() and not turn.get("tool") and not turn.get("tools"):
            return True
    return False


def _ends_without_answer(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[-1]["role"] != "assistant"


def _is_out_of_order(messages: Sequence[Message]) -> bool:
    return not ordered(messages)


def _has_result_without_call(messages: Sequence[Message]) -> bool:
    for turn in messages:
        if _is_call(turn):
            return False
        if turn["role"] == "tool":
            return True
    return False


def _contains_template_marks(messages: Sequence[Message]) -> bool:
    for turn in messages:
        content = str(turn["content"])
        if any(mark in content for mark in TEMPLATE_MARKS):
            return True
    return False


def _repeated(dialogues: Sequence[Dialogue]) -> list[str]:
    """Names of dialogues that equal an earlier one, each with the name of the earlier one."""
    # Compared as text: the same messages always give the same JSON.
    first_name: dict[str, str] = {}
    repeated = []
    for dialogue in dialogues:
        turns = [
            [turn["role"], turn["content"], turn.get("tool") or "", turn.get("tools") or ""]
            for turn in dialogue.messages
        ]
        first = first_name.setdefault(json.dumps(turns), dialogue.name)
        # A row that is drawn several times because of its weight has the same name each time.
        if first != dialogue.name:
            repeated.append(f"{dialogue.name} (as {first})")
    return repeated


class _QuestionIndex:
    """Evaluation questions as words, the long ones also by their first ``WITHIN_WORDS`` words."""

    def __init__(self, questions: Iterable[str]) -> None:
        self.questions = {_words(question) for question in questions}
        self.by_beginning: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for question in self.questions:
            if len(question) >= WITHIN_WORDS:
                self.by_beginning.setdefault(question[:WITHIN_WORDS], []).append(question)

    def occurs_in(self, text: str) -> bool:
        """Whether one of the questions is the text, or a long one is part of it."""
        words = _words(text)
        if words in self.questions:
            return True
        # Short questions ("Who?") occur in other texts by chance, so only long ones are searched.
        for start in range(len(words) - WITHIN_WORDS + 1):
            for question in self.by_beginning.get(words[start : start + WITHIN_WORDS], ()):
                if words[start : start + len(question)] == question:
                    return True
        return False


def _words(text: str) -> tuple[str, ...]:
    return tuple(comparable(text).split())


def _asks_any(messages: Sequence[Message], index: _QuestionIndex) -> bool:
    user_turns = [turn for turn in messages if turn["role"] == "user"]
    return any(index.occurs_in(str(turn["content"])) for turn in user_turns)
