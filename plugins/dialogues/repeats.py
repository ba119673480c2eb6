"""Questions asked before: the same words, or nearly.

Words are compared without case and punctuation, as the set of words and pairs of neighbours. Similarity is the exact Jaccard
one, not estimated: questions are short, so that few pairs are left to compare by prefixes (Bayardo, Ma and Srikant 2007: two sets
that are similar share one of their rarest members) and places (Xiao et al. 2008: early enough in both for the rest to suffice).
A language written without blanks is compared by the whole text.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence


def repeated(texts: Sequence[str], similar: float) -> Mapping[int, tuple[int, float]]:
    """Number of a text -> (number of the first one it repeats, similarity from ``similar`` to 1.0). Only texts that are kept are repeated."""
    sets = [_members(text) for text in texts]
    often = Counter(member for one in sets for member in one)
    holds: dict[str, dict[tuple[int, int], list[int]]] = defaultdict(
        dict
    )  # a rare member -> (size of the set, its place in it) -> texts that are kept
    same: dict[frozenset[str], int] = {}
    found: dict[int, tuple[int, float]] = {}
    for number, one in enumerate(sets):
        if one in same:  # the usual case, and found at once
            found[number] = (same[one], 1.0)
            continue
        rare = sorted(one, key=lambda member: (often[member], member))[
            : len(one) - math.ceil(similar * len(one) - 1e-9) + 1
        ]
        candidates: set[int] = set()
        for place, member in enumerate(rare):
            for (size, other_place), others in holds[member].items():
                needed = math.ceil(similar / (1 + similar) * (len(one) + size) - 1e-9)
                if (
                    min(len(one) - place, size - other_place) >= needed
                ):  # as many members follow, this one included
                    candidates.update(others)
        best, first = max(
            ((len(one & sets[other]) / len(one | sets[other]), -other) for other in candidates),
            default=(0.0, 0),
        )
        if best >= similar:
            found[number] = (-first, best)
            continue
        same[one] = number
        for place, member in enumerate(rare):
            holds[member].setdefault((len(one), place), []).append(number)
    return found


def _members(text: str) -> frozenset[str]:
    words = re.findall(r"\w+", text.casefold()) or [text.strip()]
    return frozenset([*words, *(f"{a} {b}" for a, b in zip(words, words[1:]))])
