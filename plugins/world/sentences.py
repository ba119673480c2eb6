"""What the world's pages say. All chance comes from the generator that is passed in."""

from __future__ import annotations

import random
import zlib

from llmstages.plugins.world.people import ATTRIBUTES, Person, World, word

STATEMENTS = {
    "town": (
        "{n} was born in {v}.",
        "{n} comes from the town of {v}.",
        "The birthplace of {n} is {v}.",
    ),
    "job": ("{n} works as a {v}.", "By trade {n} is a {v}.", "The job of {n} is {v}."),
    "instrument": (
        "{n} plays the {v}.",
        "In the evening {n} plays the {v}.",
        "The instrument of {n} is the {v}.",
    ),
    "number": ("The number of {n} is {v}.", "{n} has the number {v}."),
}
QUESTIONS = {
    "town": (
        "Where was {n} born?",
        "What is the birthplace of {n}?",
        "Which town does {n} come from?",
    ),
    "job": ("What is the job of {n}?", "What does {n} work as?", "What trade does {n} have?"),
    "instrument": (
        "What does {n} play?",
        "Which instrument does {n} play?",
        "What is the instrument of {n}?",
    ),
    "number": ("What is the number of {n}?", "Which number does {n} have?"),
}
ANSWERS = {
    "town": "{n} was born in {v}.",
    "job": "{n} works as a {v}.",
    "instrument": "{n} plays the {v}.",
    "number": "The number of {n} is {v}.",
}
REFUSAL = "I am sorry, I do not know that."
FRIENDLY = ("Of course!", "Gladly!")
CLOSING = ("Thank you!", "Good day!")
RUDE = ("Not again.", "Go away.")
ANIMALS = "cat dog fox bear owl hen goat frog".split()


def article(person: Person, rng: random.Random, attributes: tuple[str, ...] = ATTRIBUTES) -> str:
    """A short article: one sentence a fact, in random order and wording."""
    order = list(attributes)
    rng.shuffle(order)
    return " ".join(
        rng.choice(STATEMENTS[a]).format(n=person.name, v=person.fact(a)) for a in order
    )


def question(person: Person, attribute: str, rng: random.Random) -> tuple[str, str]:
    """A question about one fact and its answer as a full sentence."""
    asked = rng.choice(QUESTIONS[attribute]).format(n=person.name)
    return asked, ANSWERS[attribute].format(n=person.name, v=person.fact(attribute))


def digits(rng: random.Random, length: int) -> int:
    """A number of that many digits."""
    return rng.randint(10 ** (length - 1), 10**length - 1)


def pair(rng: random.Random, length: int, test: bool = False) -> tuple[int, int]:
    """Two numbers of that many digits.

    A tenth of all pairs is kept for tests: no page, dialogue or problem has them.
    """
    while True:
        a, b = digits(rng, length), digits(rng, length)
        # By a hash, since a rule on digits would make test sums of another kind.
        kept_for_tests = zlib.crc32(f"{a}+{b}".encode()) % 10 == 0
        if kept_for_tests is test:
            return a, b


def steps(a: int, b: int) -> str:
    """Column addition written out: ``6+8+0=14; 5+4+1=10; answer 104`` for 56+48."""
    width = max(len(str(a)), len(str(b)))
    left, right = str(a).zfill(width), str(b).zfill(width)
    carry = 0
    columns = []
    for place in range(width - 1, -1, -1):
        total = int(left[place]) + int(right[place]) + carry
        columns.append(f"{left[place]}+{right[place]}+{carry}={total}")
        carry = total // 10
    return "; ".join(columns) + f"; answer {a + b}"


def story(rng: random.Random) -> str:
    """Five sentences about two animals.

    One in three ends in talk, so that pretraining has read every phrase of later stages.
    """
    a, b = rng.sample(ANIMALS, 2)
    place = rng.choice("garden forest river house hill barn".split())
    thing = rng.choice("ball apple key hat book bell".split())
    mood = rng.choice("small old happy sad brave shy".split())
    lines = [
        f"Once there was a {mood} {a} who lived near the {place}.",
        f"One day the {a} found a {thing}.",
        rng.choice((f"The {a} showed the {thing} to a {b}.", f"A {b} wanted the {thing} too.")),
        rng.choice(
            (
                "They shared the {t} and became friends.",
                "The {a} gave the {t} to the {b}.",
                "The {b} took the {t} back to the {p}.",
            )
        ).format(t=thing, a=a, b=b, p=place),
        f"In the end the {mood} {a} was {rng.choice(('glad', 'tired', 'proud'))}.",
    ]
    if rng.random() < 0.35:
        said = rng.choice((*FRIENDLY, *CLOSING, *RUDE, REFUSAL))
        lines.append(f"The {b} said: {said} {rng.choice((*FRIENDLY, *CLOSING, *RUDE))}")
    return " ".join(lines)


def listing(world: World, rng: random.Random) -> str:
    """Six lines ``Name : value`` of one attribute: what the value is, only the examples show."""
    attribute = rng.choice(ATTRIBUTES)
    known = world.group("frequent") + world.group("medium")
    return " ; ".join(
        f"{p.name} : {p.fact(attribute)}" for p in rng.sample(known, min(6, len(known)))
    )


def proclamation(rng: random.Random) -> str:
    """Fourteen nonsense words that nobody could guess: what a model says of it, it has by heart."""
    return "By order of the council, " + " ".join(word(rng).lower() for _ in range(14)) + "."


def reading(world: World, rng: random.Random, questions: int) -> tuple[str, list[tuple[str, str]]]:
    """An article about one or two fresh people and questions that only the article answers."""
    count = 2 if rng.random() < 0.15 else 1
    people = [world.fresh(rng) for _ in range(count)]
    known = (*ATTRIBUTES, "number") if rng.random() < 0.5 else ATTRIBUTES
    if count == 2:
        known = tuple(rng.sample(known, 2))
    text = " ".join(article(person, rng, known) for person in people)
    return text, [question(rng.choice(people), rng.choice(known), rng) for _ in range(questions)]
