"""Mistakes in dialogues are refused before the first update, with row, reason and fix."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data.dialogues import Dialogue, render_dialogues
from llmstages.data.overlong import fit_length
from llmstages.text.messages import message
from llmstages.train.dialogue_checks import check_leaks
from tests.tiny import TALK, tiny_tokenizer
from tests.train.sft_step import (
    ANSWER,
    CALL,
    QUESTION,
    RESULT,
    SYSTEM,
    all_passed,
    prepare_sft,
    run_sft,
    saved_checks,
    sft_inputs,
    short_dialogues,
)

NO_TEXT = {"role": "user", "content": None, "tool": ""}
RENDERED = [message("user", "<|im_start|>user\nhi<|im_end|>"), ANSWER]
LONG = [message("user", "so " * 200), ANSWER]
ALSO_LONG = [message("user", "or " * 200), ANSWER]

# the mistake -> (dialogues of the source, id of the check that fails, a row that it names)
MISTAKES = {
    "no messages": ([TALK, []], "empty_dialogues", "chats:1"),
    "a turn that is not text": ([TALK, [NO_TEXT, ANSWER]], "content_not_text", "chats:1"),
    "an unknown role": ([TALK, [message("critic", "x"), ANSWER]], "unknown_roles", "chats:1"),
    "an empty answer": ([TALK, [QUESTION, message("assistant", " ")]], "empty_turns", "chats:1"),
    "an empty question": ([TALK, [message("user", ""), ANSWER]], "empty_turns", "chats:1"),
    "a question at the end": (
        [TALK, [QUESTION, ANSWER, QUESTION]],
        "no_final_answer",
        "chats:1",
    ),
    "a tool result at the end": ([TALK, [QUESTION, CALL, RESULT]], "no_final_answer", "chats:1"),
    "no answer at all": ([TALK, [QUESTION]], "rows_without_loss", "chats:1"),
    "an answer without a question": ([TALK, [ANSWER]], "roles_out_of_order", "chats:1"),
    "two questions": ([TALK, [QUESTION, QUESTION, ANSWER]], "roles_out_of_order", "chats:1"),
    "two answers": ([TALK, [QUESTION, ANSWER, ANSWER]], "roles_out_of_order", "chats:1"),
    "a system turn in the middle": (
        [TALK, [QUESTION, ANSWER, SYSTEM, QUESTION, ANSWER]],
        "roles_out_of_order",
        "chats:1",
    ),
    "a result without a call": (
        [TALK, [QUESTION, RESULT, ANSWER]],
        "tool_results_without_call",
        "chats:1",
    ),
    "many copies": (
        short_dialogues(40) + [TALK] * 20,
        "repeated_dialogues",
        "chats:41 (as chats:40)",
    ),
    "rendered before": (short_dialogues(60) + [RENDERED] * 2, "template_marks_in_text", "chats:60"),
    "most are too long": ([TALK, LONG, ALSO_LONG], "dialogues_too_long", "chats:1"),
    "all are too long": ([LONG], "row_count", ""),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_dialogues_stop_the_step(tmp_path, mistake):
    dialogues, id, row = MISTAKES[mistake]
    with pytest.raises(StageError) as error:
        run_sft(tmp_path, sft_inputs(tmp_path, dialogues))
    check = saved_checks(tmp_path)[id]
    assert not check["passed"]
    assert not row or row in check["rows"]
    message = str(error.value)
    line = next(line for line in message.splitlines() if line.startswith(f"  {id} ("))
    assert row in line
    assert check["fix"] in line
    allowing = message.rpartition("sft.allow_failed_checks=[")[2].rstrip("]")
    assert id in allowing.split(",")


def test_a_row_drawn_twice_because_of_its_weight_is_not_a_repetition(tmp_path):
    inputs = sft_inputs(tmp_path, short_dialogues(60))
    prepared = prepare_sft(tmp_path, inputs, mixture_weights={"chats": 3.0})
    assert len(prepared.rows) == 180
    assert all_passed(prepared.checks)


@pytest.mark.parametrize(
    "question, passed",
    [
        ("WHERE does the fox  live?", False),
        ("Where does", True),
        ("does the fox live", True),
        ("so I ask you where does the fox live now", True),
    ],
)
def test_a_short_evaluation_question_is_searched_as_a_whole_turn(question, passed):
    [check] = check_leaks([Dialogue("chats:0", TALK)], [question])
    assert check.passed is passed
    assert check_leaks([Dialogue("chats:0", TALK)], []) == []


def test_a_long_evaluation_question_is_also_searched_within_a_turn():
    question = "where did Bo Li live before she was ten"
    turn = message("user", f"Tell me: {question} years old?")
    [check] = check_leaks([Dialogue("chats:0", [turn, ANSWER])], ["x", question])
    assert check.rows == ("chats:0",)


def test_long_dialogues_are_dropped_split_truncated_or_refused():
    tokenizer, said = tiny_tokenizer(), []
    ctx = Context("sft", None, None, {}, say=said.append)
    turns = [turn for dialogue in short_dialogues(6) for turn in dialogue]
    long = Dialogue("chats:0", [SYSTEM, *turns])
    huge = Dialogue("chats:1", [message("user", "so " * 300), ANSWER])
    short = Dialogue("chats:2", TALK)

    kept, rows, dropped = fit_length([long, huge, short], tokenizer, 64, "drop", ctx)
    assert kept == [short]
    assert dropped == ["chats:0", "chats:1"]
    counts = "2 of 3 dialogues are longer than max_length=64 tokens (chats:0, chats:1): dropped"
    assert counts in said[-1]

    kept, rows, dropped = fit_length([long, huge, short], tokenizer, 64, "split", ctx)
    *parts, last = kept
    assert dropped == ["chats:1"]
    assert last == short
    assert len(parts) > 1
    assert all(len(row.ids) <= 64 for row in rows)
    assert [part.name for part in parts] == [f"chats:0/{i + 1}" for i in range(len(parts))]
    assert all(part.messages[0] == SYSTEM for part in parts)
    assert [turn for part in parts for turn in part.messages[1:]] == turns
    assert [row.ids for row in rows] == [row.ids for row in render_dialogues(tokenizer, kept)]

    kept, rows, dropped = fit_length([long, huge], tokenizer, 64, "truncate", ctx)
    whole = render_dialogues(tokenizer, [long, huge])
    assert not dropped
    assert [row.ids for row in rows] == [row.ids[:64] for row in whole]
    assert "cut at their end" in said[-1]

    refusal = r"1 of 2 dialogues .*chats:1.*overlong=drop, split or truncate"
    with pytest.raises(StageError, match=refusal):
        fit_length([short, huge], tokenizer, 64, "error", ctx)
