"""Questions that were asked before, in the same words or nearly so.

Words are compared without case and punctuation, as the set of words and pairs of neighbors. The
similarity is the exact Jaccard similarity, not an estimate: questions are short, so that few pairs
are left to compare by prefixes (Bayardo, Ma and Srikant 2007: two similar sets share one of their
rarest members) and positions (Xiao et al. 2008: the shared member must come early enough in both
for the rest to suffice). A language written without blanks is compared by the whole text.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

ROUNDING = 1e-9  # below any difference of two similarities


def find_repeats(texts: Sequence[str], similarity: float) -> Mapping[int, tuple[int, float]]:
    """The texts that repeat an earlier one.

    Args:
        texts: the questions, in order.
        similarity: the least Jaccard similarity, above 0 and at most 1, that makes a repeat.

    Returns:
        Number of a text -> (number of the text that it repeats, their similarity). Only texts that
        repeat nothing are repeated.
    """
    sets = [_members(text) for text in texts]
    frequency = Counter(member for members in sets for member in members)
    index = _Index(similarity)
    first_with: dict[frozenset[str], int] = {}
    repeats: dict[int, tuple[int, float]] = {}
    for number, members in enumerate(sets):
        if members in first_with:  # the usual case, and the cheapest to find
            repeats[number] = (first_with[members], 1.0)
            continue
        rarest_first = sorted(members, key=lambda member: (frequency[member], member))
        prefix = rarest_first[: _prefix_length(len(members), similarity)]
        best = (0.0, 0)
        for other in index.candidates(prefix, len(members)):
            jaccard = len(members & sets[other]) / len(members | sets[other])
            best = max(best, (jaccard, -other))  # of equally similar ones, the first
        if best[0] >= similarity:
            repeats[number] = (-best[1], best[0])
            continue
        first_with[members] = number
        index.add(prefix, len(members), number)
    return repeats


def _prefix_length(size: int, similarity: float) -> int:
    """So many of the rarest members contain one that every similar set has too."""
    return size - math.ceil(similarity * size - ROUNDING) + 1


class _Index:
    """The kept texts by the members of their prefixes."""

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        # member -> (size of the set, position of the member in it) -> numbers of texts
        self._texts: dict[str, dict[tuple[int, int], list[int]]] = defaultdict(dict)

    def add(self, prefix: Sequence[str], size: int, number: int) -> None:
        for position, member in enumerate(prefix):
            self._texts[member].setdefault((size, position), []).append(number)

    def candidates(self, prefix: Sequence[str], size: int) -> set[int]:
        """The texts that may be similar to a set of this prefix and size."""
        numbers: set[int] = set()
        for position, member in enumerate(prefix):
            for (other_size, other_position), others in self._texts[member].items():
                overlap = self._similarity / (1 + self._similarity) * (size + other_size)
                # Members that follow in both sets, this one included.
                following = min(size - position, other_size - other_position)
                if following >= math.ceil(overlap - ROUNDING):
                    numbers.update(others)
        return numbers


def _members(text: str) -> frozenset[str]:
    return frozenset(_words_and_pairs(text))


def _words_and_pairs(text: str) -> Iterator[str]:
    words = re.findall(r"\w+", text.casefold()) or [text.strip()]
    yield from words
    for left, right in pairwise(words):
        yield f"{left} {right}"
