"""The grader number: equal numbers, however they are written, and numbers of something else."""

from __future__ import annotations

from fractions import Fraction

import pytest

from llmstages.plugins.graders.number import stated_number
from llmstages.text.grading import is_right

# reply, answer
EQUAL = [
    ("It is 1/2.", "1/2"),
    ("18", "18"),
    ("18.00", "18"),
    ("$18", "18"),
    ("It costs $18.00.", "18"),
    ("1,000", "1000"),
    ("1000", "1,000"),
    ("50%", "50"),
    ("It is 50 percent", "50%"),
    ("$1,234.50", "1234.5"),
    ("-3", "-3"),
    ("−3", "-3"),
    ("-$5", "-5"),
    ("0.5", ".5"),
    ("5 + 5 + 5 + 5 + 5 = 25", "25"),
    ("#### 1,234", "1234"),
    ("The answer is 7, since 3 + 4 = 7 and not 8.", "7"),
    ("Thus $x = \\boxed{42}$, not 41", "42"),
    ("He has 3 apples and buys 4, so 7 in all.", "7"),
    ("answer -3.", "-3"),
    ("6+8=14; answer104", "104"),
    ("It was built in the years 2010-2015.", "2015"),
    ("Answer: 12+30=42", "42"),
    ("Answer = 15 (5 a week for 3 weeks)", "15"),
    ("The answer is 42. I checked it in 3 ways.", "42"),
    ("6*7=42\n#### 42\n\nQuestion: Tom has 2 hens and buys 5.\n2+5=7\n#### 7", "42"),
    ("3,5", "3.5"),
    ("It is 0.50", "1/2"),
    ("1.234,50", "1,234.50"),
    ("It is 10 €", "10"),
    ("The probability is 75%.", "3/4"),
    ("It holds 2.5 \\times 10^6 litres.", "2500000"),
    ("1.5 million people", "1500000"),
    ("3 thousand", "3000"),
    ("It is 41, not 42.", "41"),
    ("not 42 but 41", "41"),
    ("5 km", "5 km"),
    ("It is 5 kilometers away.", "5 km"),
    ("5", "5 km"),
    ("He ran 5 km.", "5"),
    ("$18", "18 dollars"),
    ("18 dollars", "$18"),
    ("50 percent", "50%"),
    ("\\boxed{42}", "42"),
    ("\\boxed{1{,}234}", "1234"),
    ("$\\frac{1}{2}$", "1/2"),
    ("The answer is \\$18.", "18"),
    ("x = 7", "7"),
    ("Total: 1\u202f234\u202f567", "1234567"),
    ("The answer is 41. Wait, the answer is 42.", "42"),
    ("Therefore, the result is 12.", "12"),
    ("It takes 90 minutes.", "90 min"),
    ("+7", "7"),
]
DIFFERENT = [
    ("", "7"),
    ("181", "18"),
    ("18.5", "18"),
    ("answer 1040", "104"),
    ("72 or 73", "72"),
    ("72 or 73", "73"),
    ("The answer is 7. The other one is 8.", "8"),
    ("3", "-3"),
    ("35", "3,5"),
    ("12", "1,2"),
    ("5", "4/5"),
    ("4", "4/5"),
    ("1/2/2020", "1/2"),
    ("seven", "7"),
    ("18 18 18 18 18", "18"),
    ("the sum is 18 the sum is 18 the sum is 18 the sum is 18", "18"),
    ("5 miles", "5 km"),
    ("10 lb", "10 kg"),
    ("5 euros", "$5"),
    ("More than 42 people came.", "42"),
    ("at least 7", "7"),
    ("up to 9", "9"),
    ("\\sqrt{16}", "16"),
    ("sqrt(16)", "16"),
    ("2^{10}", "10"),
    ("It is not 42.", "42"),
    ("The answer isn't 42.", "42"),
    ("It can't be 42.", "42"),
    ("1.5 million", "1.5"),
    ("1.5", "1500000"),
    ("50%", "0.05"),
    ("0.05", "50%"),
    ("The answer is 42. Wait, the answer is 41.", "42"),
    ("log(100)", "100"),
    ("less than 3", "3"),
    ("I don't know if it's 42", "42"),
    ("\\boxed{41}, close to 42", "42"),
    ("the year was 1990 or 1991", "1991"),
    ("5000 m", "5 km"),
    ("-0.5", "0.5"),
    ("1e400", "0"),
    ("NaN", "0"),
    ("1/0", "0"),
    ("The answer is 12 + 30", "12"),
    ("12:30", "30"),
    ("about 7 or 8", "8"),
    ("between 3 and 4", "3"),
    ("10^5", "5"),
    ("1,2", "12"),
    ("007 or 008", "7"),
]
# What remains: right replies that are not seen ...
MISSED = [
    ("Twenty-three.", "23"),
    ("5000 m", "5 km"),
    ("half past twelve", "12:30"),
    ("3 to 4", "3.5"),
]
# ... and wrong ones that are: the unit is in the question alone, or the number is another thing's.
NEEDLESS = [("5 miles", "5"), ("I have no idea, but there are 3.", "3")]


@pytest.mark.parametrize(("reply", "answer"), EQUAL)
def test_equal_numbers(reply, answer):
    assert is_right(reply, {"answer": answer, "grader": "number"})


@pytest.mark.parametrize(("reply", "answer"), DIFFERENT)
def test_numbers_that_are_not_the_result(reply, answer):
    assert not is_right(reply, {"answer": answer, "grader": "number"})


@pytest.mark.parametrize(
    ("reply", "answer", "verdict"),
    [(*pair, False) for pair in MISSED] + [(*pair, True) for pair in NEEDLESS],
)
def test_errors_that_remain(reply, answer, verdict):
    assert is_right(reply, {"answer": answer, "grader": "number"}) is verdict


def test_the_table_is_long_enough():
    assert len(EQUAL) >= 40 and len(DIFFERENT) >= 30


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("first 3, then 4.", "4"),
        ("none", None),
        ("1,234.50 dollars", "1234.50"),
        ("3 + 4 = 7; answer 8", "8"),
        ("answer unknown, 5", "5"),
        ("4/5", "4/5"),
        ("2 1/2 cups", "5/2"),
        ("2\u00bd cups", "5/2"),
        ("It is 1.234,50 euros", "1234.50"),
        ("1\u202f234 people", "1234"),
        ("12'500 francs", "12500"),
        ("3,5 liters", "7/2"),
        ("about 3e3", "3000"),
        ("from 2010-2015", "2015"),
        ("\uff14\uff12", "42"),
        ("\u0664\u0662", "42"),
        ("1/0", None),
        ("a total of 18 (9 on each of 2 shelves)", "18"),
        ("(18)", "18"),
        ("Answer: 12 + 30 = 42", "42"),
        ("The answer is 5 x 3 = 15, or 3 x 5 = 15", "15"),
        ("The answer is 8 = 2 x 4", "8"),
        ("The answer is 12 + 30", None),
    ],
)
def test_the_number_of_a_solution(text, number):
    assert stated_number(text) == (number and Fraction(number))
