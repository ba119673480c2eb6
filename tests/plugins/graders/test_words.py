"""The grader words: replies that state an answer, and replies that only contain it."""

from __future__ import annotations

import pytest

from llmstages.text.grading import is_right

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

# reply, answer
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
    ("B", "B"),
    ("(B) Paris", "B"),
    ("The answer is B.", "B"),
    ("In the US.", "US"),
    ("东京。", "东京。"),
    ("Paris\n\nQ: And of Italy?\nRome", "Paris"),
    ("(b)", "B"),
    ("b.", "B"),
    ("It is Rome", "Rome."),
    ("Washington", "washington"),
    ("I believe it was Marie Curie.", "Marie Curie"),
    ("Sao Paulo", "Sao Paulo"),
    ("São Paulo", "São Paulo"),
    ("Actually, it is Paris.", "Paris"),
    ("No wait, it is Paris.", "Paris"),
    ("The answer is Lyon. Wait, the answer is Paris.", "Paris"),
    ("Yes.", "Yes"),
    ("Yes, because it is.", "Yes"),
    ("No, it is not.", "No"),
    ("\\boxed{\\text{Paris}}", "Paris"),
    ("2010-2015", "2010-2015"),
    ("The B-52 bomber.", "B-52"),
    ("It was in New York.", "New York"),
    ("Theresa May.", "May"),
    ("Jefferson, not Washington.", "Jefferson"),
    ("It is called the 12 Angry Men.", "12 Angry Men"),
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
    (
        "word " * 45 + "Paris.",
        "Paris",
    ),
    ("Yes, I am Ada.", "No, I am Ada"),
    ("There is no reason to doubt it, yes.", "No"),
    ("No, yes.", "Yes"),
    ("It is true or false.", "True"),
    ("A dog is an animal.", "A"),
    ("It was us.", "US"),
    ("Paris", ""),
    ("a dog", "A"),
    ("I think b is wrong", "B"),
    ("Rome\nQuestion: what is the capital of France?\nParis", "Paris"),
    ("New York", "York"),
    ("Washington was not the third president; Jefferson was.", "Washington"),
    ("In 2018 one would have said Theresa May, but today it is Keir Starmer.", "Theresa May"),
    ("No idea, sorry.", "No"),
    ("Yes and no.", "Yes"),
    ("Yes or no?", "No"),
    ("I think the answer is A. Actually, wait, it is D.", "A"),
    ("The answer is Paris. Wait, the answer is Lyon.", "Paris"),
    ("It can't be Paris.", "Paris"),
    ("Everything except Paris.", "Paris"),
    ("South Korea", "Korea"),
    ("The capital hasn't been Paris.", "Paris"),
    ("North Dakota", "Dakota"),
    ("It was Lyon, unlike Paris.", "Paris"),
    ("The capital is Paris or so they say, or Lyon.", "Lyon"),
    ("I am not Paris.", "Paris"),
    ("Paris isn't the capital.", "Paris"),
    ("Paris was never the capital.", "Paris"),
    ("Nobody knows whether Paris", "Paris"),
    ("", "Yes"),
    ("Not yes.", "Yes"),
    ("The answer is unknown. Paris is nice.", "Paris"),
    ("East Berlin", "Berlin"),
]
# What remains: right replies that are not seen ...
MISSED = [
    ("The City of Light", "Paris"),
    ("the USA", "United States"),
    ("colour", "color"),
]
# ... and wrong ones that are: no rule knows that this is another Paris.
NEEDLESS = [("Paris Hilton", "Paris"), ("I guess Paris, maybe.", "Paris")]


@pytest.mark.parametrize(("reply", "answer"), GIVEN)
def test_a_given_answer_is_right(reply, answer):
    assert is_right(reply, {"answer": answer, "grader": "words"})


@pytest.mark.parametrize(("reply", "answer"), ONLY_CONTAINED)
def test_an_answer_that_is_only_contained_is_not_right(reply, answer):
    assert not is_right(reply, {"answer": answer, "grader": "words"})


@pytest.mark.parametrize(
    ("reply", "answer", "verdict"),
    [(*pair, False) for pair in MISSED] + [(*pair, True) for pair in NEEDLESS],
)
def test_errors_that_remain(reply, answer, verdict):
    assert is_right(reply, {"answer": answer, "grader": "words"}) is verdict


def test_the_table_is_long_enough():
    assert len(GIVEN) >= 40 and len(ONLY_CONTAINED) >= 40
