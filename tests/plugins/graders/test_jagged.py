"""The grader jagged: right answers in natural wording count, wrong ones do not."""

from __future__ import annotations

import json

import pytest

from llmstages.text.grading import is_right

DECIMALS = {
    "kind": "choice",
    "options": ["9.11", "9.9"],
    "more": "larger|greater|bigger|more",
    "less": "smaller|less",
}
TALLEST = {
    "kind": "choice",
    "options": ["Anna", "Ben", "Carla"],
    "more": "tallest",
    "less": "shortest",
}
WEEKDAY = {"kind": "choice", "options": "Monday Tuesday Wednesday Thursday".split()}
DAYS = {"kind": "number"}
PRODUCT = {"kind": "number", "operands": ["34", "77"]}
SPELL = {"kind": "spelling"}
DATE = {"kind": "words", "aliases": ["March 15, 2024", "15 March 2024"]}
WORD = {"kind": "words"}
TRUE = {"kind": "words", "aliases": ["yes"]}

RAMBLE = (
    "To determine this, we need to consider the relative size of what is compared, which is a "
    "classic example of a relationship in mathematics and in other fields of science as well."
)

# meta, answer, reply
RIGHT = [
    (DECIMALS, "9.9", "9.9"),
    (DECIMALS, "9.9", "9.9 is larger than 9.11."),
    (DECIMALS, "9.9", "9.9 is larger."),
    (DECIMALS, "9.9", "The larger number is 9.9."),
    (DECIMALS, "9.9", "The larger of the two is **9.9**."),
    (DECIMALS, "9.9", "9.9 > 9.11"),
    (DECIMALS, "9.9", "9.11 < 9.9"),
    (DECIMALS, "9.9", "9.11 is smaller than 9.9, so the answer is 9.9."),
    (DECIMALS, "9.9", "9.11 is less than 9.9"),
    (DECIMALS, "9.9", "Of 9.11 and 9.9, 9.9 is the greater number."),
    (DECIMALS, "9.9", "Between 9.11 and 9.9, the bigger one is 9.9."),
    (DECIMALS, "9.11", "9.11 is greater than 9.9."),  # where it is wanted
    (DECIMALS, "9.9", f"{RAMBLE} The larger number is 9.9, which is 9.9 times larger. {RAMBLE}"),
    (DECIMALS, "9.9", "9.9 is 0.8 times larger than 9.11."),
    (TALLEST, "Anna", "Anna"),
    (TALLEST, "Anna", "Anna is the tallest."),
    (TALLEST, "Anna", "The tallest is Anna."),
    (TALLEST, "Anna", "The tallest person is Anna, who is taller than Ben and Carla."),
    (TALLEST, "Anna", "Anna > Ben > Carla. The answer is Anna."),
    ({**WEEKDAY, "given": "Monday"}, "Thursday", "2024-03-04 is a Monday, so it is a Thursday."),
    ({**WEEKDAY, "given": "Monday"}, "Monday", "It is a Monday again."),
    (WEEKDAY, "Thursday", "Monday, Tuesday, Wednesday, Thursday. The answer is Thursday."),
    (DAYS, "12", "12"),
    (DAYS, "12", "There are 12 days between 2024-03-03 and 2024-03-15."),
    (DAYS, "12", "There are 12 days from March 3, 2024 to March 15, 2024."),
    (DAYS, "12", "From 3rd of March 2024 to 15 March 2024 it is 12 days"),
    (DAYS, "3", "There are three r's in strawberry."),
    (DAYS, "3", 'The letter "r" occurs 3 times in the word "strawberry".'),
    (DAYS, "2", "It occurs twice."),
    (PRODUCT, "2618", "34 * 77 = 2618"),
    (PRODUCT, "2618", "34 times 77 is 2,618."),
    (PRODUCT, "2618", "2618 is the product of 34 and 77."),
    (PRODUCT, "2618", "The product of 77 and 34 is 2618."),
    (PRODUCT, "2618", "34 * 70 = 2380. 34 * 7 = 238. 2380 + 238 = 2618. The answer is 2618."),
    (SPELL, "s-t-a-r", "s-t-a-r"),
    (SPELL, "s-t-a-r", "S T A R"),
    (SPELL, "s-t-a-r", "The letters are s, t, a and r."),
    (SPELL, "s-t-a-r", '"star" is spelled "s", "t", "a", "r".'),
    (SPELL, "s-t-a-r", "1. s\n2. t\n3. a\n4. r"),
    (SPELL, "s-t-a-r", "1 s, 2 t, 3 a, 4 r. The answer is s-t-a-r."),
    (SPELL, "s-t-a-r", "S.T.A.R."),
    (WORD, "rats", "rats"),
    (WORD, "rats", '"star" backwards is "rats".'),
    (WORD, "rats", "The reversed word is: Rats"),
    (DATE, "2024-03-15", "2024-03-15"),
    (DATE, "2024-03-15", "The date is March 15, 2024."),
    (DATE, "2024-03-15", "10 days after 2024-03-05 is 15 March 2024."),
    (TRUE, "True", "True"),
    (TRUE, "True", "Yes, Anna is taller than Carla."),
    (TRUE, "True", "The statement is true."),
]
WRONG = [
    (DECIMALS, "9.9", "9.11"),
    (DECIMALS, "9.9", "9.11 is larger than 9.9."),
    (DECIMALS, "9.9", "The larger number is 9.11."),
    (DECIMALS, "9.9", "9.9 is smaller than 9.11."),
    (DECIMALS, "9.9", "9.9 is smaller."),
    (DECIMALS, "9.9", "9.9 < 9.11"),
    (DECIMALS, "9.9", "9.11 or 9.9"),
    (DECIMALS, "9.9", "9.90 and 9.11"),
    (DECIMALS, "9.9", "9.9 is larger than 9.11. 9.11 is larger than 9.9."),
    (DECIMALS, "9.9", "It is 9.95."),
    (DECIMALS, "9.9", "9.9 is not larger than 9.11."),
    (DECIMALS, "9.1", "9.11"),
    (TALLEST, "Anna", "Ben"),
    (TALLEST, "Anna", "Anna is taller than Ben."),  # a premise
    (TALLEST, "Anna", "Anna, Ben and Carla."),
    (TALLEST, "Anna", "Anna is the shortest."),
    (TALLEST, "Anna", "The tallest is Ben, then Anna."),
    (WEEKDAY, "Thursday", "Monday, Tuesday, Wednesday or Thursday"),
    (WEEKDAY, "Thursday", "It is not a Thursday."),
    (DAYS, "12", "There are 11 days between 2024-03-03 and 2024-03-12."),
    (DAYS, "15", "From 2024-03-03 to 2024-03-15."),
    (DAYS, "3", "There are two or three."),
    (DAYS, "3", "There are 2 r's in strawberry."),
    (DAYS, "2", "The difference between 2036-09-19 and 2"),  # cut off
    (DAYS, "1", f"{RAMBLE} Light takes its time to travel one meter."),
    (DECIMALS, "9.9", f"{RAMBLE}\nThe remainder of 9.9 by 10 is left."),
    (PRODUCT, "2618", "34 * 77"),
    (PRODUCT, "77", "34 * 77"),
    (PRODUCT, "2618", "The product of 34 and 77 is 2619."),
    (SPELL, "s-t-a-r", "star"),
    (SPELL, "s-t-a-r", "s-t-a-a-r"),
    (SPELL, "s-t-a-r", "st-ar"),
    (SPELL, "s-t-a-r", "s-t-a-r. The answer is s-t-r-a."),
    (SPELL, "s-t-a-r", "s-t-a-r or s-t-r-a"),
    (WORD, "rats", "star"),
    (WORD, "rats", "r-a-t-s-t-a-r"),
    (WORD, "rats", "starrats"),
    (DATE, "2024-03-15", "March 15, 2025"),
    (DATE, "2024-03-15", "2024-03-16"),
    (TRUE, "True", "False"),
    (TRUE, "True", "True or false"),
    (TRUE, "True", "No, she is not."),
]


def problem(meta, answer):
    aliases = meta.get("aliases", [])
    return {"answer": answer, "aliases": aliases, "grader": "jagged", "meta": json.dumps(meta)}


@pytest.mark.parametrize("meta, answer, reply", RIGHT)
def test_right(meta, answer, reply):
    assert is_right(reply, problem(meta, answer))


@pytest.mark.parametrize("meta, answer, reply", WRONG)
def test_wrong(meta, answer, reply):
    assert not is_right(reply, problem(meta, answer))


def test_a_row_without_a_kind_is_graded_as_what_its_answer_looks_like():
    assert is_right("It is 18.00", {"answer": "18", "grader": "jagged"})
    assert is_right("It is Paris.", {"answer": "Paris", "grader": "jagged"})
    assert not is_right("It is 19", {"answer": "18", "grader": "jagged"})
