"""The errors that are meant for the user, and the spelling help that their messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class StageError(Exception):
    """A mistake that the user can fix; shown without a traceback.

    The message says what is wrong, why, and what to do.
    """


class MissingValueError(StageError):
    """A value without a default was not set.

    Attributes:
        keys: the dotted keys of the missing values.
    """

    def __init__(self, message: str, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank; its type if there is none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def near(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    """`` Did you mean 'x'?`` for the nearest of the words, or an empty string."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return f" Did you mean {found[0]!r}?" if found else ""
