"""Tasks about numbers: which of two decimals is larger, and products."""

from __future__ import annotations

import random
from fractions import Fraction

from llmstages.data.jagged.items import Item, Style

COMPARING = (
    "Which is larger, {first} or {second}?",
    "Which number is greater: {first} or {second}?",
    "Of {first} and {second}, which one is bigger?",
)
MULTIPLYING = (
    "What is {a} * {b}?",
    "What is {a} times {b}?",
    "Multiply {a} by {b}.",
)
MORE = "larger|largest|greater|greatest|bigger|biggest|higher|highest|more"
LESS = "smaller|smallest|less|lower|lowest"
LARGEST_WHOLE = 20  # in front of the decimals


def comparing_decimals(rng: random.Random, size: int, number: int, style: Style) -> Item:
    """Two numbers with the same whole part, one with ``size`` decimals and one with fewer.

    The longer one is larger as often as not, and so is the first one.
    """
    longer_wins, first_wins = number % 2 == 0, number // 2 % 2 == 0
    whole = rng.randint(1, LARGEST_WHOLE)
    while True:
        long = _decimal(rng, whole, size)
        short = _decimal(rng, whole, rng.randint(1, max(1, size - 1)))
        is_larger = Fraction(long) > Fraction(short)
        if long != short and is_larger == longer_wins:
            break
    large, small = (long, short) if longer_wins else (short, long)
    first, second = (large, small) if first_wins else (small, large)
    digits_of_large = _padded(large, size)
    digits_of_small = _padded(small, size)
    return Item(
        question=style.phrase(rng, COMPARING).format(first=first, second=second),
        answer=large,
        key=f"decimals {small} {large}",
        steps=f"{first} is {whole}.{_padded(first, size)} and {second} is "
        f"{whole}.{_padded(second, size)}. {digits_of_large} > {digits_of_small}.",
        code=f"max({first}, {second})",
        kind="choice",
        constant="the first" if first_wins else "the second",
        meta={"options": [first, second], "more": MORE, "less": LESS},
    )


def _decimal(rng: random.Random, whole: int, decimals: int) -> str:
    """A number with so many decimals, the last of which is not 0."""
    digits = [str(rng.randint(0, 9)) for _ in range(decimals - 1)]
    return f"{whole}.{''.join(digits)}{rng.randint(1, 9)}"


def _padded(number: str, decimals: int) -> str:
    """The decimals of a number, filled up with zeros."""
    return number.partition(".")[2].ljust(decimals, "0")


def multiplication(rng: random.Random, size: int, number: int, style: Style) -> Item:
    """The product of two numbers of ``size`` digits, by the digits of the second one."""
    low = 2 if size == 1 else 10 ** (size - 1)
    a, b = rng.randint(low, 10**size - 1), rng.randint(low, 10**size - 1)
    return Item(
        question=style.phrase(rng, MULTIPLYING).format(a=a, b=b),
        answer=str(a * b),
        key=f"product {min(a, b)} {max(a, b)}",
        steps=_partial_products(a, b),
        code=f"{a} * {b}",
        kind="number",
        meta={"operands": [str(a), str(b)]},
    )


def _partial_products(a: int, b: int) -> str:
    """The product worked out by the digits of b, with a running sum."""
    digits = str(b)
    parts = [int(digit) * 10 ** (len(digits) - place) for place, digit in enumerate(digits, 1)]
    parts = [part for part in parts if part]
    lines = [f"{a} * {part} = {a * part}." for part in parts]
    total = a * parts[0]
    for part in parts[1:]:
        lines.append(f"{total} + {a * part} = {total + a * part}.")
        total += a * part
    return " ".join(lines)
