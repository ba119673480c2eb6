"""Which rows are kept out of training (by what must not leak, never by row), and samples."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmstages.core.digest import sha256

MEASURING_ROLES = ("test", "threshold")  # of problems that nothing is trained on


def comparable(text: str) -> str:
    """A text without what does not make it another one: case, white space, invisible characters.

    Copies of one question differ in these where files of several sources are merged.
    """
    text = unicodedata.normalize("NFKC", text)
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return " ".join(visible.casefold().split())


def choose_tests(keys: Sequence[str], fraction: float) -> list[bool]:
    """Which rows are for tests: about ``fraction`` of them, all rows of a key or none.

    The choice follows from the keys alone, so it does not depend on the order of the rows. A key
    with more rows than are still wanted is passed over while another one fits. At least one key is
    chosen and one is left, unless all rows have the same key or the fraction is 0: then none is.

    Args:
        keys: what must not be on both sides, such as the question of a row.
    """
    sizes = Counter(keys)
    if not fraction:
        return [False] * len(keys)
    wanted = max(1, round(fraction * len(keys)))
    chosen: set[str] = set()
    count = 0
    shuffled = sorted(sizes, key=sha256)
    for key in shuffled:
        if count + sizes[key] <= wanted and count + sizes[key] < len(keys):
            chosen.add(key)
            count += sizes[key]
    if not chosen and len(sizes) > 1:
        chosen.add(min(shuffled, key=lambda key: sizes[key]))
    return [key in chosen for key in keys]


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most ``count`` items, evenly spread over all of them."""
    if count >= len(items):
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]
