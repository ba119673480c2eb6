"""Tasks about the letters of a word, which a model does not see: it reads tokens."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from pathlib import Path

from llmstages.data.jagged.items import Item, Style
from llmstages.text.grading import is_loop

LIST = Path(__file__).parent / "words.txt"
MOST_COUNTED = 3  # times that a letter occurs
TRIES = 40  # words that are made before a letter may occur more often

SPELLING = (
    'Spell the word "{word}" letter by letter.',
    'How is the word "{word}" spelled, one letter after the other?',
    'Write the letters of "{word}" one by one.',
)
COUNTING = (
    'How many times does the letter "{letter}" occur in the word "{word}"?',
    'How many "{letter}" are in "{word}"?',
    'Count the letter "{letter}" in the word "{word}".',
)
REVERSING = (
    'Write the word "{word}" backwards.',
    'What is "{word}" spelled backwards?',
    'Reverse the letters of the word "{word}".',
)


@cache
def english() -> dict[int, list[str]]:
    """Number of letters -> the bundled words of this length, sorted."""
    words: dict[int, set[str]] = {}
    for word in LIST.read_text(encoding="utf-8").split():
        words.setdefault(len(word), set()).add(word)
    return {length: sorted(words[length]) for length in sorted(words)}


def draw(rng: random.Random, letters: int, style: Style) -> str:
    """A word of so many letters."""
    return rng.choice(english()[letters]) if style.english else style.word(rng, letters)


def spelling(rng: random.Random, size: int, number: int, style: Style) -> Item:
    """Write a word letter by letter."""
    word = draw(rng, size, style)
    numbered = ", ".join(f"{place} {letter}" for place, letter in enumerate(word, 1))
    return Item(
        question=style.phrase(rng, SPELLING).format(word=word),
        answer="-".join(word),
        key=f"word {word}",
        steps=f"{numbered}.",
        code=f'"-".join("{word}")',
        kind="spelling",
    )


def letter_counting(rng: random.Random, size: int, number: int, style: Style) -> Item:
    """Count a letter that occurs in a word; once, twice and three times take turns."""
    counted = _english_counted if style.english else _generated_counted
    word, letter = counted(rng, size, number, style)
    running, lines = 0, []
    for current in word:
        running += current == letter
        lines.append(f"{current} {running}")
    return Item(
        question=style.phrase(rng, COUNTING).format(word=word, letter=letter),
        answer=str(word.count(letter)),
        key=f"word {word}",
        steps=f"{', '.join(lines)}.",
        code=f'"{word}".count("{letter}")',
        kind="number",
    )


@cache
def _repeating(size: int) -> list[list[tuple[str, str]]]:
    """English words of a size with a letter that occurs once, twice, three times.

    Only lists that are not empty: no word of four letters has one letter three times.
    """
    found: dict[int, list[tuple[str, str]]] = {times: [] for times in range(1, MOST_COUNTED + 1)}
    for word in english()[size]:
        for letter, times in Counter(word).items():
            if times <= MOST_COUNTED:
                found[times].append((word, letter))
    return [pairs for pairs in found.values() if pairs]


def _english_counted(rng: random.Random, size: int, number: int, style: Style) -> tuple[str, str]:
    """A word of the list and a letter of it."""
    by_times = _repeating(size)
    return rng.choice(by_times[number % len(by_times)])


def _generated_counted(rng: random.Random, size: int, number: int, style: Style) -> tuple[str, str]:
    """A generated word and a letter of it, which is put in as often as it is the turn of."""
    times = min(1 + number % MOST_COUNTED, size)
    for _ in range(TRIES):
        letter = rng.choice(style.alphabet)
        others = style.alphabet.replace(letter, "")
        letters = [letter] * times + rng.choices(others, k=size - times)
        rng.shuffle(letters)
        if not is_loop(" ".join(letters)):
            return "".join(letters), letter
    # A long word of few letters has each of them more often.
    word = style.word(rng, size)
    return word, rng.choice(word)


def reversing(rng: random.Random, size: int, number: int, style: Style) -> Item:
    """Write a word backwards. A word that reads the same both ways would be answered by a copy."""
    word = draw(rng, size, style)
    while word == word[::-1] and len(set(style.alphabet)) > 1 and size > 1:
        word = draw(rng, size, style)
    backwards = word[::-1]
    return Item(
        question=style.phrase(rng, REVERSING).format(word=word),
        answer=backwards,
        key=f"word {word}",
        steps=f"Forwards: {'-'.join(word)}. Backwards: {'-'.join(backwards)}.",
        code=f'"{word}"[::-1]',
        kind="words",
    )
