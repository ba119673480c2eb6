"""Answers of problems: choices, aliases, and what is no answer."""

from __future__ import annotations

import json

import pytest

from llmstages.data.formats import InvalidRow, problem
from llmstages.text.grading import is_right

BIRDS = ["a pike", "a wren", "an adder", "a newt"]
LINES = "A. a pike\nB. a wren\nC. an adder\nD. a newt"


@pytest.mark.parametrize(
    "row",
    [
        {"choices": BIRDS, "answer": 1},
        {"choices": BIRDS, "answer": "B"},
        {"options": BIRDS, "answer": "(b)".upper()},
        {"choices": BIRDS, "answer": "a wren"},
        {"endings": BIRDS, "label": "1"},
        {"choices": {"text": BIRDS, "label": ["A", "B", "C", "D"]}, "answerKey": "B"},
        {"choices": {"text": BIRDS, "label": ["1", "2", "3", "4"]}, "answerKey": "2"},
        {"options": dict(zip("ABCD", BIRDS, strict=True)), "answer": "B"},
        dict(zip("ABCD", BIRDS, strict=True)) | {"answer": "B"},
    ],
)
def test_choices_stand_in_the_question_and_the_answer_is_a_letter(row):
    if row.get("label") == "1":
        row = {**row, "label": 1}
    made = problem({"question": "Which is a bird?", **row})
    assert made["prompt"][0]["content"] == f"Which is a bird?\n{LINES}"
    assert (made["answer"], made["aliases"]) == ("B", ["a wren"])
    for reply in ("B", "(B) a wren", "The answer is B.", "It is a wren."):
        assert is_right(reply, made)
    for reply in ("A", "a newt", "The answer is C.", "1"):
        assert not is_right(reply, made)


@pytest.mark.parametrize(
    "row",
    [
        {"choices": BIRDS},
        {"choices": BIRDS, "answer": 4},
        {"choices": BIRDS, "answer": -1},
        {"choices": BIRDS, "answer": "E"},
        {"choices": BIRDS, "answer": "a robin"},
        {"choices": BIRDS, "answer": True},
        {"choices": [1, [2]], "answer": 0},
        {"choices": "a or b", "answer": "a"},
    ],
)
def test_choices_without_a_clear_answer_are_refused(row):
    with pytest.raises(InvalidRow):
        problem({"question": "Which?", **row})


def test_numbers_as_choices():
    made = problem({"question": "Largest?", "choices": [0, 9, 2, 1], "answer": "9"})
    assert (made["answer"], made["aliases"]) == ("B", ["9"])
    assert problem({"question": "?", "choices": ["0", "9"], "answer": 1})["answer"] == "B"


@pytest.mark.parametrize(
    "row, accepted",
    [
        ({"answer": ["Velmar", "Velmar-on-Vel"]}, ["Velmar", "Velmar-on-Vel"]),
        ({"answers": ["Velmar", "Velmar"]}, ["Velmar"]),
        ({"answer": {"value": "Odo Keller", "aliases": ["Keller"]}}, ["Odo Keller", "Keller"]),
        ({"answers": {"text": ["Odo", "Keller"], "answer_start": [0, 4]}}, ["Odo", "Keller"]),
        ({"answer": "Odo", "answers": ["Keller", "Odo"]}, ["Odo", "Keller"]),
        ({"answer": 3.5}, ["3.5"]),
        ({"answer": [3, "three"]}, ["3", "three"]),
        ({"answer": True}, ["true"]),
    ],
)
def test_every_accepted_answer_is_right(row, accepted):
    made = problem({"question": "Who?", **row})
    assert [made["answer"], *made["aliases"]] == accepted
    for answer in accepted:
        assert is_right(f"It is {answer}.", made) or answer == "true"
    assert not is_right("Nobody knows.", made)
    json.dumps(made)


@pytest.mark.parametrize(
    "answer", [{"start": 3}, [{"start": 3}], [[]], [], {}, "", [""], {"value": {"x": 1}}]
)
def test_what_is_no_answer_is_refused(answer):
    with pytest.raises(InvalidRow):
        problem({"question": "Who?", "answer": answer})


@pytest.mark.parametrize(
    "worked, answer", [("#### 1,234", "1234"), ("#### 3,5", "3,5"), ("#### 1,234,567", "1234567")]
)
def test_only_commas_of_thousands_are_taken_out(worked, answer):
    assert problem({"question": "How many?", "answer": f"So it is.\n{worked}"})["answer"] == answer


def test_pictures_are_refused():
    with pytest.raises(InvalidRow, match="image"):
        problem({"question": "What is this?", "answer": "a cat", "image": {"path": "x.png"}})
