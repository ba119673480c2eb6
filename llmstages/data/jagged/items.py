"""What a question of a jagged task is, and which options the stages that ask it share."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.digest import sha256
from llmstages.text.grading import is_loop

TEST_SHARE = 0.2  # of all words, pairs of numbers, dates and sets of names
PLACES = 10_000  # into which they are spread to draw those of the test


@dataclass(frozen=True)
class Item:
    """One question with its answer and the ways to it.

    Attributes:
        question: as asked, without a wish for a way of answering.
        answer: the exact answer as text.
        key: what the question is about; items of one key are all for tests or all for training.
        steps: the way to the answer in text, without the answer itself.
        code: a short Python program; the text of its last value contains the answer.
        kind: how a reply is graded (plugins/graders/jagged.py).
        aliases: other forms of the answer.
        constant: what a model must always do to be right here without thinking, such as to name the
            first number; "" if it is to give the answer.
        meta: what else the grader reads.
    """

    question: str
    answer: str
    key: str
    steps: str
    code: str
    kind: str
    aliases: Sequence[str] = ()
    constant: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_test(self) -> bool:
        """Whether it is for tests. It follows from the key alone."""
        return int(sha256(self.key), 16) % PLACES < TEST_SHARE * PLACES


@dataclass(frozen=True)
class Style:
    """How the questions of all tasks are worded.

    Attributes:
        english: whether words and names are those of the bundled lists, or generated.
        alphabet: the letters of generated words.
        wordings: how many phrasings of each question are used.
    """

    english: bool = True
    alphabet: str = string.ascii_lowercase
    wordings: int = 3

    def phrase(self, rng: random.Random, phrasings: Sequence[str]) -> str:
        """One of the phrasings in use."""
        return rng.choice(phrasings[: self.wordings])

    def word(self, rng: random.Random, letters: int) -> str:
        """A generated word.

        None that repeats itself so that writing its letters would be taken for a loop.
        """
        word = "".join(rng.choices(self.alphabet, k=letters))
        while is_loop(" ".join(word)):
            word = "".join(rng.choices(self.alphabet, k=letters))
        return word

    def several(
        self, rng: random.Random, number: int, known: Sequence[str], letters: int
    ) -> list[str]:
        """Different names: of a list, or generated ones of so many letters."""
        if self.english:
            return rng.sample(known, number)
        names: dict[str, None] = {}
        while len(names) < number:
            names[self.word(rng, letters)] = None
        return list(names)


# (rng, size, number, style) -> an item. The number goes up with each item that was taken, so that
# kinds and answers take turns and come equally often.
Maker = Callable[[random.Random, int, int, Style], Item]


@dataclass(frozen=True)
class Task:
    """A kind of question.

    Attributes:
        make: makes one item.
        sizes: the sizes asked by default.
        unit: what the size counts, for the names of groups.
        smallest, largest: the sizes that exist.
    """

    make: Maker
    sizes: tuple[int, ...]
    unit: str
    smallest: int
    largest: int
