"""Replies that give an answer, and replies that only contain it."""

from __future__ import annotations

from fractions import Fraction

import pytest

from llmstages.text.grading import is_correct, is_loop, stated_number

RAMBLE = (
    "Le nombre de l'artillerage est l'Ameration Scientif of the which are the number of a great "
    "deal of things. In the year of the war the people of Lyon went to the sea. A house in Paris "
    "was sold to the king of the mountain. The rest of the world is full of birds and of water."
)
REASONED = (
    "France is a country in Europe with a long history and many large cities, among them Lyon and "
    "Marseille. The government has been in the same place for centuries. So the capital is Paris."
)
LINES = (
    "France has many large cities. Lyon and Marseille are among the largest ones.\n"
    "The president lives in none of these two, but in the largest of all French cities.\n\nParis"
)

GIVEN = [
    ("Paris", "Paris"),
    ("Paris.", "Paris"),
    ("paris", "Paris"),
    ("**Paris**", "Paris"),
    ('"Paris"', "Paris"),
    ("The capital of France is Paris.", "Paris"),
    ("It's Paris!", "Paris"),
    ("Paris, France", "Paris"),
    ("Paris is the capital and it is a beautiful city.", "Paris"),
    ("It is Paris, the largest city of France, as far as I know.", "Paris"),
    ("Hello! The capital is Paris.", "Paris"),
    ("Is it Lyon? No, it is Paris.", "Paris"),
    ("It is not Lyon. It is Paris.", "Paris"),
    ("It is not Lyon but Paris.", "Paris"),
    ("I am not sure, but I think it is Paris.", "Paris"),
    ("Answer: Paris", "Paris"),
    ("The answer is Paris.", "Paris"),
    ("The final answer is: **Paris**.", "Paris"),
    (REASONED, "Paris"),
    (LINES, "Paris"),
    ("She was born in Warsaw, Poland, in 1867.", "Warsaw"),
    ("New York, NY, USA", "New York"),
    ("The author is J. R. R. Tolkien.", "Tolkien"),
    ("It was written by Dr. Seuss in 1957.", "Seuss"),
    ("She plays the bell and became famous.", "bell"),
    ("I am Ada and speak English.", "English"),
    ("It is Paris, a large and old city.", "Paris"),
    ("It is Paris, the seat of kings, of parliament and of presidents.", "Paris"),
    ("I speak English and Dutch.", "English and Dutch"),
    ("Yes, it is.", "Yes"),
    ("no", "No"),
    ("The statement is false.", "False"),
    ("It is called `max_length`.", "max_length"),
    ("The product is a*b.", "a*b"),
    (r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    ("It is 1/2.", "1/2"),
    ("B", "B"),
    ("(B) Paris", "B"),
    ("The answer is B.", "B"),
    ("In the US.", "US"),
    ("东京。", "东京。"),
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
    (r"Thus $x = \boxed{42}$, not 41", "42"),
    ("He has 3 apples and buys 4, so 7 in all.", "7"),
    ("answer -3.", "-3"),
    ("6+8=14; answer104", "104"),
    ("It was built in the years 2010-2015.", "2015"),
    ("Answer: 12+30=42", "42"),
    ("Answer = 15 (5 a week for 3 weeks)", "15"),
    ("The answer is 42. I checked it in 3 ways.", "42"),
    ("6*7=42\n#### 42\n\nQuestion: Tom has 2 hens and buys 5.\n2+5=7\n#### 7", "42"),
    ("Paris\n\nQ: And of Italy?\nRome", "Paris"),
    ("3,5", "3.5"),
    ("It is 0.50", "1/2"),
    ("1.234,50", "1,234.50"),
    ("(b)", "B"),
    ("b.", "B"),
    ("It is Rome", "Rome."),
    ("It is 10 \u20ac", "10"),
]

ONLY_CONTAINED = [
    ("", "Paris"),
    (RAMBLE, "Paris"),
    ("Paris Paris Paris Paris Paris", "Paris"),
    ("Paris is Paris is Paris is Paris is Paris is", "Paris"),
    ("The capital is Parisville.", "Paris"),
    ("It is not Paris.", "Paris"),
    ("The capital isn't Paris.", "Paris"),
    ("It was never in Paris.", "Paris"),
    ("I do not know whether it is Paris.", "Paris"),
    ("London rather than Paris.", "Paris"),
    ("Lyon or Paris", "Paris"),
    ("It is Paris or London.", "Paris"),
    ("Either Lyon, or Paris.", "Paris"),
    ("Paris/London", "Paris"),
    ("Paris, London, Rome and Berlin", "Paris"),
    ("It could be Rome, Paris, London, Berlin.", "Paris"),
    ("Paris and London", "Paris"),
    ("Paris, London and Rome.", "Rome"),
    ("Maybe it is Paris, London and Rome.", "Paris"),
    ("Is it Paris? No, it is Lyon.", "Paris"),
    ("I went to Paris. The answer is Lyon.", "Paris"),
    ("Answer: Lyon. Paris is larger.", "Paris"),
    ("word " * 45 + "Paris.", "Paris"),
    ("Yes, I am Ada.", "No, I am Ada"),
    ("There is no reason to doubt it, yes.", "No"),
    ("No, yes.", "Yes"),
    ("It is true or false.", "True"),
    ("A dog is an animal.", "A"),
    ("It was us.", "US"),
    ("Paris", ""),
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
    ("a dog", "A"),
    ("I think b is wrong", "B"),
    ("Rome\nQuestion: what is the capital of France?\nParis", "Paris"),
    ("seven", "7"),
    ("18 18 18 18 18", "18"),
    ("the sum is 18 the sum is 18 the sum is 18 the sum is 18", "18"),
]


@pytest.mark.parametrize(("text", "answer"), GIVEN)
def test_a_given_answer_is_right(text, answer):
    assert is_correct(text, answer)


@pytest.mark.parametrize(("text", "answer"), ONLY_CONTAINED)
def test_an_answer_that_is_only_contained_is_not_right(text, answer):
    assert not is_correct(text, answer)


def test_there_are_cases_of_both_signs():
    assert len(GIVEN) > 40 and len(ONLY_CONTAINED) > 30


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
