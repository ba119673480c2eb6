"""Fields of a JSON request, each with its type and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmstages.core.errors import StageError

MOST_CHARACTERS = 100_000  # of a text in a request
HOTTEST = 10.0  # temperature
COLDEST = 1e-5  # temperature; below, logits divided by it are no longer finite


def text(given: Mapping[str, Any], name: str, most: int = MOST_CHARACTERS) -> str:
    """A text that must be there and not be empty.

    Raises:
        StageError: it is not one, or too long.
    """
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise StageError(f"{name} must be a text")
    if len(value) > most:
        raise StageError(f"{name} has {len(value)} characters; at most {most} are taken")
    return value


def optional_text(given: Mapping[str, Any], name: str, most: int = MOST_CHARACTERS) -> str:
    """A text, "" if it is not there."""
    if given.get(name) in (None, ""):
        return ""
    return text(given, name, most)


def number(given: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A finite number within limits.

    Raises:
        StageError: it is not one.
    """
    # transformers refuses a temperature of 2 and takes one of 2.0.
    return float(_within(given, name, default, least, most))


def temperature(given: Mapping[str, Any]) -> float:
    """The field ``temperature``. Below COLDEST it is 0, greedy, which it tends to.

    Raises:
        StageError: it is not a number, or out of its range.
    """
    value = number(given, "temperature", 0.0, 0.0, HOTTEST)
    return value if value >= COLDEST else 0.0


def whole(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number within limits.

    Raises:
        StageError: it is not one.
    """
    value = _within(given, name, default, least, most)
    if value != int(value):
        raise StageError(f"{name} must be a whole number")
    return int(value)


def _within(
    given: Mapping[str, Any], name: str, default: float, least: float, most: float
) -> float:
    """A number as it was sent: large integers, as seeds are, keep all their digits."""
    value = given.get(name)
    if value is None:
        return default
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Compared without a conversion, which integers of 400 digits do not survive. NaN is refused.
    if not is_number or not least <= value <= most:
        raise StageError(f"{name} must be a number from {least:g} to {most:g}")
    return value


def flag(given: Mapping[str, Any], name: str) -> bool:
    """True or false; false if it is not there.

    Raises:
        StageError: it is something else.
    """
    value = given.get(name)
    if not isinstance(value, bool | None):
        raise StageError(f"{name} must be true or false")
    return bool(value)


def seed(given: Mapping[str, Any]) -> int | None:
    """The field ``seed``; None, which draws one, if it is not there."""
    return None if given.get("seed") is None else whole(given, "seed", 0, 0, 2**63 - 1)


def names(given: Mapping[str, Any], name: str, most: int) -> list[str]:
    """A list of 1 to ``most`` texts.

    Raises:
        StageError: it is not one.
    """
    values = given.get(name)
    is_list = isinstance(values, list) and all(isinstance(value, str) for value in values)
    if not is_list or not values or len(values) > most:
        raise StageError(f"{name} must be a list of 1 to {most} names")
    return list(values)
