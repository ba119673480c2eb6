"""Simple logic: who is first in a chain, whether a statement about it is true, syllogisms."""

from __future__ import annotations

import itertools
import random

from llmstages.data.jagged.items import Item, Style

NAMES = (
    "Anna Ben Carla David Emma Felix Greta Hugo Ida Jonas Kira Leo Mona Nils Olga Paul Rosa Simon "
    "Tara Udo Vera Walter Yara Zoe"
).split()
# Invented, so that no knowledge of the world helps or misleads.
NOUNS = (
    "blick dax wug fep toma zorp glim quib nark spund veck lorp mibb snarf plonk drel gorp hisk"
).split()
GENERATED_LETTERS = 4  # of generated names
# Comparative, superlative, and both of the opposite
ADJECTIVES = (
    ("taller", "tallest", "shorter", "shortest"),
    ("older", "oldest", "younger", "youngest"),
    ("faster", "fastest", "slower", "slowest"),
)
KINDS = 3


def logic(rng: random.Random, size: int, number: int, style: Style) -> Item:
    """The three kinds take turns, and so do the answers of each."""
    kind, turn = number % KINDS, number // KINDS
    if kind == 2:
        return _syllogism(rng, size, turn, style)
    names = [name.capitalize() for name in style.several(rng, size, NAMES, GENERATED_LETTERS)]
    make = _extreme if kind == 0 else _statement
    return make(rng, names, turn, style)


def _key(names: list[str]) -> str:
    return f"names {' '.join(sorted(names))}"


def _premises(rng: random.Random, names: list[str], more: str) -> str:
    """What is said about neighbors of the chain, in any order."""
    sentences = [f"{first} is {more} than {second}." for first, second in itertools.pairwise(names)]
    rng.shuffle(sentences)
    return " ".join(sentences)


def _set(names: list[str]) -> str:
    return "{" + ", ".join(f'"{name}"' for name in names) + "}"


def _extreme(rng: random.Random, names: list[str], turn: int, style: Style) -> Item:
    """Who is the tallest, or the shortest?"""
    more, most, _less, least = rng.choice(ADJECTIVES)
    first = turn % 2 == 0
    answer, asked = (names[0], most) if first else (names[-1], least)
    left, right = _set(names[:-1]), _set(names[1:])
    code = f"({left} - {right}).pop()" if first else f"({right} - {left}).pop()"
    phrasings = ("Who is the {a}?", "Which of them is the {a}?", "Name the {a} of them.")
    question = style.phrase(rng, phrasings).format(a=asked)
    return Item(
        question=f"{_premises(rng, names, more)} {question}",
        answer=answer,
        key=_key(names),
        steps=f"From {most} to {least}: {', '.join(names)}.",
        code=code,
        kind="choice",
        meta={"options": sorted(names), "more": asked, "less": least if first else most},
    )


def _statement(rng: random.Random, names: list[str], turn: int, style: Style) -> Item:
    """A statement about two of the chain that are not neighbors where it is long enough."""
    more, most, less, least = rng.choice(ADJECTIVES)
    is_true = turn % 2 == 0
    distance = rng.randint(min(2, len(names) - 1), len(names) - 1)
    place = rng.randint(0, len(names) - 1 - distance)
    high, low = names[place], names[place + distance]
    # Both directions of the comparison, so that the words do not give the answer away.
    word = rng.choice((more, less))
    first, second = (high, low) if (word == more) == is_true else (low, high)
    operator = "<" if word == more else ">"
    phrasings = ("True or false: {s}.", "{s}. True or false?", "Is this true or false? {s}.")
    question = style.phrase(rng, phrasings).format(s=f"{first} is {word} than {second}")
    listed = ", ".join(f'"{name}"' for name in names)
    return Item(
        question=f"{_premises(rng, names, more)} {question}",
        answer=str(is_true),
        key=_key(names),
        steps=f"From {most} to {least}: {', '.join(names)}.",
        code=f'x = [{listed}]; x.index("{first}") {operator} x.index("{second}")',
        kind="words",
        aliases=["yes" if is_true else "no"],
        constant="yes" if is_true else "no",
    )


def _syllogism(rng: random.Random, size: int, turn: int, style: Style) -> Item:
    """All ... are ..., and in every other pair of questions the last ones are no ...

    Whether it follows takes turns.
    """
    nouns = style.several(rng, size, NOUNS, GENERATED_LETTERS)
    first, last = f"{nouns[0]}s", f"{nouns[-1]}s"
    follows, denies = turn % 2 == 0, turn // 2 % 2 == 1
    pairs = list(itertools.pairwise(nouns))
    sentences = [f"All {a}s are {b}s." for a, b in pairs]
    inside = ", ".join(f"{a}s are {b}s" for a, b in pairs)
    sets = ["{" + ", ".join(map(str, range(place + 1))) + "}" for place in range(size)]
    if denies:
        sentences[-1] = f"No {nouns[-2]}s are {last}."
        sets[-1] = "{-1}"
        claim = f"no {first} are {last}" if follows else f"some {first} are {last}"
        test = "not a & b" if follows else "a & b"
        steps = f"All {first} are {nouns[-2]}s, and these are no {last}."
    else:
        claim = f"all {first} are {last}" if follows else f"all {last} are {first}"
        test = "a <= b" if follows else "b <= a"
        steps = f"All {inside}. So all {first} are {last}; the reverse is not said."
    rng.shuffle(sentences)
    phrasings = ("Does it follow that {c}?", "Can one conclude that {c}?", "Must it be that {c}?")
    answer = "yes" if follows else "no"
    return Item(
        question=f"{' '.join(sentences)} {style.phrase(rng, phrasings).format(c=claim)}",
        answer=answer,
        key=_key(nouns),
        steps=steps,
        code=f'a, b = {sets[0]}, {sets[-1]}; "yes" if {test} else "no"',
        kind="words",
        constant=answer,
    )
