"""Claims about two models that answered the same questions."""

from __future__ import annotations

import json

import pytest

from llmstages.plugins.report.claims import Term
from llmstages.plugins.report.paired import PairedAnswers
from llmstages.plugins.report.steps import FinishedStep

TERMS = [
    Term(1, "evaluate", "sums/2 digits/after/right"),
    Term(-1, "evaluate", "sums/2 digits/before/right"),
]


@pytest.fixture
def answers(tmp_path):
    """answers(rows): what two models answered, as evaluate keeps it."""

    class Chain:
        steps = (FinishedStep("evaluate", "scores", tmp_path, {}),)

    def write(rows):
        (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return PairedAnswers(Chain())

    return write


def row(model, number, prompt, right, **more):
    known = {"task": "sums", "group": "2 digits", "wanted": "5", "refused": False}
    return {**known, "model": model, "question": number, "prompt": prompt, "right": right, **more}


def asked(model, first, rights):
    return [row(model, first + place, f"{place}+5?", right) for place, right in enumerate(rights)]


def test_questions_are_matched_by_what_was_asked_not_by_their_numbers(answers):
    before, after = [False] * 8 + [True] * 12, [True] * 18 + [False] * 2
    pairs = answers([*asked("before", 900, before), *asked("after", 3, after)]).compare(TERMS)
    assert pairs.number == 20
    low, high = pairs.interval
    assert low < 18 / 20 - 12 / 20 < high
    # After alone is right on 8, before alone on 2: McNemar's exact test, 2 * P(<= 2 of 10)
    assert pairs.chance == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_a_question_that_is_asked_twice_is_two(answers):
    rows = [
        row(model, number, "1+4?", model == "after")
        for model in ("before", "after")
        for number in (1, 2)
    ]
    assert answers(rows).compare(TERMS).number == 2


def test_rows_without_refusals_are_compared_too(answers):
    rows = [*asked("before", 0, [False, True]), *asked("after", 0, [True, True])]
    for one in rows:
        del one["refused"]
    assert answers(rows).compare(TERMS).number == 2


@pytest.mark.parametrize(
    "terms",
    [
        TERMS[:1],
        [TERMS[0], Term(1, "evaluate", "sums/2 digits/before/right")],
        [TERMS[0], Term(-1, "other", "sums/2 digits/before/right")],
        [TERMS[0], Term(-1, "evaluate", "sums/2 digits/before/wrong")],
        [TERMS[0], Term(-1, "evaluate", "sums/3 digits/before/right")],
        [Term(1, "evaluate", "loss"), Term(-1, "evaluate", "loss")],
    ],
)
def test_what_is_not_of_the_same_questions_is_not_paired(answers, terms):
    known = answers([*asked("before", 0, [True]), *asked("after", 0, [True])])
    assert known.compare(terms) is None


def test_other_questions_are_not_paired(answers):
    known = answers([*asked("before", 0, [True]), *asked("after", 0, [True, False])])
    assert known.compare(TERMS) is None
