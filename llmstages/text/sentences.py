"""Sentences of a text, where an abbreviation does not end one."""

from __future__ import annotations

import re
from collections.abc import Iterable


def joined_at_abbreviations(parts: Iterable[str], abbreviation: re.Pattern[str]) -> list[str]:
    """The parts of a text as sentences, without empty ones.

    Args:
        parts: the text, cut at every sign that may end a sentence.
        abbreviation: found in a part that goes on in the next one.
    """
    sentences: list[str] = []
    is_open = False
    for part in parts:
        if not part:
            continue
        if is_open:
            sentences[-1] += f" {part}"
        else:
            sentences.append(part)
        is_open = abbreviation.search(part) is not None
    return sentences
