"""The grader exact: the reply is the answer and nothing else."""

from __future__ import annotations

import json

import pytest

from llmstages.text.grading import is_right

ANSWERS = (
    "positive",
    "B",
    "42",
    "New York",
    "<think>",
    "{'a': 1}",
    "東京",
    "São Paulo",
    "yes",
    "x^2",
)
# What is put around an answer, and whether the reply still is the answer.
FORMS = [
    ("{}", True),
    (" {} ", True),
    ("\n{}\n\n", True),
    ("{}.", False),
    ("The answer is {}.", False),
    ("{} {}", False),
    ("not {}", False),
    ("**{}**", False),
    ("{}\nQuestion: what else?", False),
]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_the_reply_is_the_answer_alone(answer, form, expected):
    reply = form.replace("{}", answer)
    assert is_right(reply, {"answer": answer, "grader": "exact"}) is expected


@pytest.mark.parametrize(
    ("reply", "answer", "options", "expected"),
    [
        ("Positive", "positive", {}, False),
        ("Positive", "positive", {"ignore_case": True}, True),
        ("positive.", "positive", {"ignore_period": True}, True),
        ("POSITIVE.", "positive", {"ignore_period": True, "ignore_case": True}, True),
        ("positive!", "positive", {"ignore_period": True}, False),
        ("Sa\u0303o Paulo", "S\u00e3o Paulo", {}, True),
        ("18.0", "18", {}, False),
    ],
)
def test_options(reply, answer, options, expected):
    row = {"answer": answer, "grader": json.dumps({"use": "exact", **options})}
    assert is_right(reply, row) is expected


def test_aliases_count():
    row = {"answer": "NYC", "aliases": ["New York"], "grader": "exact"}
    assert is_right("New York", row) and not is_right("York", row)
