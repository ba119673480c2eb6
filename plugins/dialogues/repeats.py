"""Questions asked before: the same words, or nearly.

Words are compared without case and punctuation, as the set of words and pairs of neighbours. Similarity is the exact Jaccard
one, not estimated: questions are short, so that prefix filtering (Bayardo, Ma and Srikant 2007: two sets that are similar share
one of their rarest members) leaves few pairs to compare. A language written without blanks is compared by the whole text.
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
    holds: dict[str, list[int]] = defaultdict(list)  # a rare member -> texts that are kept
    found: dict[int, tuple[int, float]] = {}
    for number, one in enumerate(sets):
        rare = sorted(one, key=lambda member: (often[member], member))[: len(one) - math.ceil(similar * len(one) - 1e-9) + 1]
        near = ((len(one & sets[other]) / len(one | sets[other]), -other) for other in {other for member in rare for other in holds[member]})
        best, first = max(near, default=(0.0, 0))
        if best >= similar:
            found[number] = (-first, best)
            continue
        for member in rare:
            holds[member].append(number)
    return found


def _members(text: str) -> frozenset[str]:
    words = re.findall(r"\w+", text.casefold()) or [text.strip()]
    return frozenset([*words, *(f"{a} {b}" for a, b in zip(words, words[1:]))])
