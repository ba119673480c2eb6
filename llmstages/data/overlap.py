"""How much of held-out documents also stands in what is trained on, by n-grams of tokens.

Exact copies are easy to keep apart. Pages that differ in a date, texts that quote each other and
templates are not, and a loss on them says what was memorized, not what was learned. Overlap of
n-grams is the usual measure (Brown et al. 2020, "Language Models are Few-Shot Learners", appendix
C, with 13 words; Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better").

N-grams are compared by 64-bit hashes. Training tokens are read once, in chunks, so they may be
memory-mapped; in memory are 17 bytes for each n-gram of the held-out documents.
"""

from __future__ import annotations

from typing import Any

from llmstages.data.segments import CHUNK, Segments, coverage

NGRAM = 8  # tokens
MULTIPLIER = 0x9E3779B97F4A7C15  # odd and without a pattern (2**64 divided by the golden ratio)
TABLE_BITS = 24  # of the table that sorts out most n-grams before they are searched for


class HeldOutNgrams:
    """The n-grams of held-out documents, and which of them training has as well."""

    def __init__(self, documents: Segments) -> None:
        """Read the documents; each segment is one."""
        import numpy as np

        hashes = [_hashes(documents.ids(index)) for index in range(len(documents))]
        self._sizes = np.array([len(own) for own in hashes], np.int64)
        every = np.concatenate([*hashes, np.zeros(0, np.uint64)])
        self._known, self._place = np.unique(every, return_inverse=True)
        self._seen = np.zeros(len(self._known), bool)
        self._table = np.zeros(1 << TABLE_BITS, bool)
        self._table[_slots(self._known)] = True

    def mark(self, segments: Segments) -> None:
        """Mark the n-grams that stand in segments which are trained on."""
        import numpy as np

        for own, tokens in segments.by_source():
            starts = segments.start[own]
            # An n-gram begins at a place of a segment behind which its other tokens follow.
            ends = starts + np.maximum(segments.length[own] - NGRAM + 1, 0)
            starts, ends = np.sort(starts), np.sort(ends)
            for at in range(0, len(tokens.ids), CHUNK):
                hashes = _hashes(tokens.ids[at : at + CHUNK + NGRAM - 1])
                if not len(hashes):
                    continue
                inside = coverage(starts, ends, at, len(hashes)) > 0
                self._mark_hashes(hashes[inside])

    def _mark_hashes(self, hashes: Any) -> None:
        import numpy as np

        if not len(self._known):
            return
        candidates = hashes[self._table[_slots(hashes)]]
        places = np.searchsorted(self._known, candidates)
        places = np.minimum(places, len(self._known) - 1)
        self._seen[places[self._known[places] == candidates]] = True

    def shares(self) -> Any:
        """The share of each document's n-grams that are marked; 0 for one without n-grams."""
        import numpy as np

        marked = np.concatenate([[0], np.cumsum(self._seen[self._place])])
        ends = np.cumsum(self._sizes)
        counts = marked[ends] - marked[ends - self._sizes]
        return counts / np.maximum(self._sizes, 1)

    def share(self) -> float:
        """The share of all n-grams that are marked, each as often as it occurs."""
        return float(self._seen[self._place].mean()) if len(self._place) else 0.0


def seen_share(held_out: Segments, trained: Segments) -> float:
    """The share of the n-grams of held-out segments that also stand in what is trained on."""
    ngrams = HeldOutNgrams(held_out)
    ngrams.mark(trained)
    return ngrams.share()


def _hashes(ids: Any) -> Any:
    """The hash of the n-gram that begins at each place: an array of len(ids) - NGRAM + 1."""
    import numpy as np

    size = max(0, len(ids) - NGRAM + 1)
    multiplier = np.uint64(MULTIPLIER)
    hashes = np.zeros(size, np.uint64)
    for offset in range(NGRAM):
        hashes *= multiplier
        hashes += ids[offset : offset + size].astype(np.uint64)
    # The high bits depend on all tokens only after they are mixed.
    hashes ^= hashes >> np.uint64(32)
    hashes *= multiplier
    return hashes


def _slots(hashes: Any) -> Any:
    import numpy as np

    return hashes >> np.uint64(64 - TABLE_BITS)
