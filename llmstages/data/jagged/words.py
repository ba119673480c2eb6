"""Tasks about the letters of a word, which a model does not see: it reads tokens."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from pathlib import Path

from llmstages.data.jagged.items import Item, Style

LIST = Path(__file__).parent / "words.txt"
MOST_COUNTED = 3  # times that a letter occurs
TRIES = 40  # words that are looked at for a letter that occurs often enough

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
    word, letter = _counted(rng, size, 1 + number % MOST_COUNTED, style)
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


def _counted(rng: random.Random, size: int, wanted: int, style: Style) -> tuple[str, str]:
    """A word and a letter that occurs in it ``wanted`` times, or the most that was met."""
    best = ("", "")
    most = 0
    for _ in range(TRIES):
        word = draw(rng, size, style)
        counts = Counter(word)
        fitting = [letter for letter, count in counts.items() if most < count <= wanted]
        if fitting:
            # Of letters that occur equally often, any.
            rng.shuffle(fitting)
            letter = max(fitting, key=lambda letter: counts[letter])
            best, most = (word, letter), counts[letter]
        if most == wanted:
            break
    if not most:  # each letter of a long word of few letters occurs more often
        word = draw(rng, size, style)
        best = (word, rng.choice(word))
    return best


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
