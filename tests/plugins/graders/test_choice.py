"""The grader choice: replies that name one choice, and replies that name another or several."""

from __future__ import annotations

import pytest

from llmstages.text.grading import is_right, offered_choices

CITIES = "Which is the capital of France?\nA. Lyon\nB. Paris\nC. Nice\nD. None of the above"
NUMBERS = "What is 6 * 7?\nA) 36\nB) 42\nC) 48\nD) 42.5"
OVERLAP = "Where is the UN?\n(A) York\n(B) New York\n(C) New York State"
SENTENCES = (
    "Why do leaves look green?\nA. They reflect green light.\nB. They absorb green light.\n"
    "C. They are made of green stones."
)


def row(question: str, letter: str = "B") -> dict:
    prompt = [{"role": "user", "content": question, "tool": ""}]
    texts = offered_choices({"prompt": prompt})
    return {"prompt": prompt, "answer": letter, "aliases": [texts[letter]]}


RIGHT = [
    "B",
    "B.",
    "b",
    "(B)",
    "(b)",
    "B)",
    "**B**",
    "B. Paris",
    "B: Paris",
    "(B) Paris",
    "Option B",
    "option B.",
    "Answer: B",
    "Answer: (B)",
    "The answer is B.",
    "The answer is (B).",
    "The answer is (B) Paris.",
    "The correct answer is B: Paris.",
    "The correct answer is **B**.",
    "The correct option is B.",
    "I choose B because it is the capital.",
    "I would go with B.",
    "It's B.",
    "It is B, since Lyon is smaller.",
    "My choice: B",
    "B is correct.",
    "B is the right answer.",
    "(B) is the correct answer.",
    r"\boxed{B}",
    r"The answer is $\boxed{\text{B}}$.",
    r"\boxed{\text{(B)}}",
    "Paris",
    "Paris.",
    "The capital of France is Paris.",
    "It is Paris, a large city.",
    "Lyon is not the capital.\nB",
    "Lyon and Nice are cities as well. So the answer is B.",
    "The answer is A. Wait, the answer is B.",
    "It is not A. It is B.",
    "I think it is B",
    "letter B",
    '"B"',
    "B - Paris",
    "Let me think. Lyon is large, but the seat is elsewhere.\n\nAnswer: B",
]
WRONG = [
    "",
    "A",
    "C.",
    "(D)",
    "A. Lyon",
    "The answer is A.",
    "The answer is C, not B.",
    "It is not B.",
    "B is not correct.",
    "A or B",
    "B or C",
    "A and B",
    "Both A and B are correct.",
    "A, B, C",
    "B, C",
    "The answer is B or C.",
    "Either B or D.",
    "A B C D",
    "Lyon",
    "Paris or Lyon",
    "Lyon, Paris, Nice",
    "Not Paris.",
    "It is in a big city.",
    "I do not know.",
    "None of the above",
    r"\boxed{A}",
    r"\boxed{A, B}",
    "The answer is B. Wait, the answer is C.",
    "B B B B B B",
    "Bordeaux",
    "Be careful.",
    "I choose A because B is wrong.",
    "E",
    "Option C",
]


@pytest.mark.parametrize("reply", RIGHT)
def test_replies_that_name_the_right_choice(reply):
    assert is_right(reply, row(CITIES))


@pytest.mark.parametrize("reply", WRONG)
def test_replies_that_do_not(reply):
    assert not is_right(reply, row(CITIES))


@pytest.mark.parametrize(
    ("question", "letter", "reply", "expected"),
    [
        (NUMBERS, "B", "42", True),
        (NUMBERS, "B", "6 * 7 = 42", True),
        (NUMBERS, "B", "42.5", False),
        (NUMBERS, "B", "36", False),
        (NUMBERS, "B", "B) 42", True),
        (NUMBERS, "D", "42", False),
        (OVERLAP, "B", "New York", True),
        (OVERLAP, "A", "New York", False),
        (OVERLAP, "B", "New York State", False),
        (OVERLAP, "C", "New York State", True),
        (SENTENCES, "A", "They reflect green light.", True),
        (SENTENCES, "A", "A. They reflect green light.", True),
        (SENTENCES, "A", "They absorb green light.", False),
        (SENTENCES, "A", "A leaf is green.", False),
        (SENTENCES, "A", "A", True),
        (CITIES, "A", "A large city.", False),
        (CITIES, "A", "I am not sure.", False),
        (CITIES, "D", "None of the above.", True),
        (CITIES, "D", "D", True),
        (CITIES, "C", "Nice", True),
    ],
)
def test_texts_of_choices(question, letter, reply, expected):
    assert is_right(reply, row(question, letter)) is expected


# What remains: a right reply that is not seen, by elimination.
@pytest.mark.parametrize("reply", ["Neither A, C nor D.", "The second one.", "P-A-R-I-S"])
def test_errors_that_remain(reply):
    assert not is_right(reply, row(CITIES))


def test_lines_that_are_no_choices():
    def offered(text: str) -> dict:
        return offered_choices({"prompt": [{"role": "user", "content": text}]})

    assert list(offered(CITIES)) == ["A", "B", "C", "D"]
    assert offered("A. One thing alone") == {}
    assert offered("B. Paris\nC. Lyon") == {}
    assert offered("no lines") == {}
    assert offered_choices({}) == {}
