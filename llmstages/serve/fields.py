"""Fields of a JSON request, each with its type and its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmstages.core.errors import StageError

MOST_CHARACTERS = 100_000  # of a text in a request


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
    value = given.get(name)
    if value is None:
        return default
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        raise StageError(f"{name} must be a number from {least:g} to {most:g}")
    return value


def whole(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number within limits.

    Raises:
        StageError: it is not one.
    """
    value = number(given, name, default, least, most)
    if value != int(value):
        raise StageError(f"{name} must be a whole number")
    return int(value)


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
