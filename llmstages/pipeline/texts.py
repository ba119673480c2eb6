"""Words stay words: YAML and Hydra type a value before the type of its field is known.

On the command line ``name=2024_06_01`` is a number to Hydra, and ``no`` is False to YAML 1.1. For a
field that holds text, what was typed is what counts; in a file, where the word itself is lost, the
value is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmstages.core.errors import StageError

# Keys of a run that hold text, in a file without types.
TEXT_KEYS = ("name", "store", "runs", "only", "chat")
Select = Callable[[str], Any]  # dotted key -> composed value, None where there is none


def typed_words(given: Iterable[tuple[str, Any, str]], select: Select) -> Iterator[tuple[str, str]]:
    """(key, word) of each field of text that the command line sets to what looks like a number.

    Args:
        given: (key, value as Hydra typed it, word as the user typed it) of each override.
        select: of the composed config.
    """
    for key, value, word in given:
        is_other = isinstance(value, (bool, int, float))
        if is_other and (key in TEXT_KEYS or isinstance(select(key), str)):
            yield key, word


def refuse_yaml_words(file: str, values: Any, package: str, select: Select) -> None:
    """Refuse a value that YAML read as a number or boolean where text is wanted.

    Args:
        file: the name of the file, for the message.
        values: what it holds.
        package: the dotted key below which it stands.
        select: of the composed config.

    Raises:
        StageError: there is such a value.
    """
    for key, value in _leaves(values, package):
        if isinstance(value, (bool, int, float)) and select(key) == str(value):
            raise StageError(
                f"{file}: {key} holds {value!r} where text is wanted: YAML reads words such as "
                "no, on, 1_000 and 1e3 as something else. Put it in quotes"
            )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is neither a mapping nor a list."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{key}[{number}]")
    else:
        yield key, value
