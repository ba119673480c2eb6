"""Which grader decides, and what a grader may return."""

from __future__ import annotations

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.text.grading import are_right, grader_of, is_loop, is_right, verdicts

QUESTION = "Which is the capital?\nA. Paris\nB. Lyon\nC. Nice"


def asked(text: str = QUESTION) -> list[dict[str, str]]:
    return [{"role": "user", "content": text, "tool": ""}]


@pytest.mark.parametrize(
    ("answer", "grader"),
    [
        ("18", "number"),
        ("$18.00", "number"),
        ("3/4", "number"),
        ("5 km", "number"),
        ("50%", "number"),
        ("-3", "number"),
        ("Paris", "words"),
        ("5 apples", "words"),
        ("12:30", "words"),
        ("A", "words"),
        (r"\frac{1}{2}", "math"),
        ("2x+1", "math"),
        ("(1, 2)", "math"),
    ],
)
def test_the_grader_is_detected_by_the_answer(answer, grader):
    assert grader_of({"answer": answer}) == grader


def test_the_letter_of_an_offered_choice_is_graded_as_a_choice():
    assert grader_of({"answer": "A", "prompt": asked()}) == "choice"
    assert grader_of({"answer": "D", "prompt": asked()}) == "words"
    assert grader_of({"answer": "A", "prompt": asked("Which vitamin?")}) == "words"


def test_a_problem_names_its_grader():
    row = {"answer": "18", "grader": "exact"}
    assert grader_of(row) == "exact"
    assert is_right("18", row) and not is_right("It is 18.", row)
    row["grader"] = json.dumps({"use": "exact", "ignore_case": True})
    assert is_right("yes", {**row, "answer": "Yes"})


def test_each_alias_is_graded_as_what_it_is():
    row = {"answer": "two", "aliases": ["2", "a pair"]}
    assert is_right("2.0", row) and is_right("Two.", row) and is_right("It is a pair.", row)
    assert not is_right("3", row)


def test_replies_to_many_problems_keep_their_order():
    rows = [{"answer": "1"}, {"answer": "Paris"}, {"answer": "x^2"}, {"answer": "2"}]
    assert are_right(["1", "Paris", "$x^2$", "3"], rows) == [True, True, True, False]
    assert are_right([], []) == []


def own_grader(folder, body: str) -> str:
    path = folder / "own.py"
    path.write_text(f"def is_right(reply, problem):\n    {body}\n")
    return f"{path}:is_right"


def test_a_function_in_a_file_is_a_grader(tmp_path):
    row = {"answer": "paris", "grader": own_grader(tmp_path, "return problem['answer'] in reply")}
    assert is_right("in paris", row) and not is_right("Paris", row)


def test_none_is_undecided_and_not_right(tmp_path):
    row = {"answer": "x", "grader": own_grader(tmp_path, "return None")}
    assert verdicts(["x"], [row]) == [None]
    assert not is_right("x", row)


@pytest.mark.parametrize("value", ["'yes'", "0.5", "1", "[True]", "float('nan')"])
def test_what_is_no_verdict_is_refused(tmp_path, value):
    row = {"answer": "x", "grader": own_grader(tmp_path, f"return {value}")}
    with pytest.raises(StageError, match="verdict"):
        is_right("x", row)


def test_an_error_names_the_file_and_the_line(tmp_path):
    row = {"answer": "x", "grader": own_grader(tmp_path, "return problem['absent']")}
    with pytest.raises(StageError, match="own.py, line 2.*absent"):
        is_right("x", row)


def test_an_unknown_grader_is_refused():
    with pytest.raises(StageError, match="number"):
        is_right("x", {"answer": "x", "grader": "numbr"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ha ha ha", False),
        ("ha ha ha ha", True),
        ("a b a b a b a b", True),
        ("a b a b a b", False),
        ("1 + 1 + 1 + 1 + 1", False),
        ("The dog ran. The dog ate. The dog slept. The dog won.", False),
    ],
)
def test_loops(text, expected):
    assert is_loop(text) is expected
