"""The text a tokenizer is trained on: a seeded part of corpus and dialogues up to a number of bytes, read as a stream.

A vocabulary hardly changes after the first gigabyte, while the memory of counting grows with the number of different
words (tokenizers#316, #994, #1681), so no more is read. Where there is less text than the limit, all of it is used, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError

MEASURED = 2000  # documents at most that a tokenizer is measured on
BLOCK = 2_000_000  # characters looked at in one go
PROBE = 20_000_000  # bytes in which different words are counted
GROWTH = 0.62  # different words grow with bytes to this power: 62,000 in 10 MB, 258,000 in 100 MB (Heaps' law)
ABSURD = 2000  # bytes of a word that no prose has
SHUFFLE = (
    0x9E3779B97F4A7C15,
    0xBF58476D1CE4E5B9,
    0x94D049BB133111EB,
)  # splitmix64 (Steele et al. 2014)


class Sample:
    """Texts to train on, in the order of the tables; may be gone through again and again."""

    def __init__(
        self,
        documents: Any,
        dialogues: Sequence[Any],
        *,
        sample_bytes: int,
        seed: int,
        test_fraction: float = 0.0,
    ) -> None:
        """documents: a table with ``text``; dialogues: tables with ``messages``. test_fraction: share of the documents never trained on."""
        import numpy as np

        self.tables = [(documents, _documents), *((table, _dialogues) for table in dialogues)]
        sizes = [
            np.fromiter(
                (sum(len(text.encode()) for text in texts) for texts in read(table)),
                np.int64,
                len(table),
            )
            for table, read in self.tables
        ]
        if not len(documents):
            raise StageError(
                "the corpus is empty, so there is nothing to train a tokenizer on; look at `llmstages show corpus`"
            )
        self.kept = [np.ones(len(size), bool) for size in sizes]
        self.kept[0][shuffled(len(documents), seed + 1)[: int(test_fraction * len(documents))]] = (
            False
        )
        self.total = int(sum(size[kept].sum() for size, kept in zip(sizes, self.kept, strict=True)))
        if self.total > sample_bytes:
            self.kept = [
                chosen(size * kept, sample_bytes / self.total, seed)
                for size, kept in zip(sizes, self.kept, strict=True)
            ]
        self.bytes = int(sum(size[kept].sum() for size, kept in zip(sizes, self.kept, strict=True)))
        if self.total and not self.bytes:
            raise StageError(
                f"sample_bytes={sample_bytes} is less than any document; some hundred megabytes are a good value"
            )
        self.held_out = not self.kept[0].all()

    def __iter__(self) -> Iterator[str]:
        for (table, read), kept in zip(self.tables, self.kept, strict=True):
            for texts, on in zip(read(table), kept, strict=True):
                if on:
                    yield from texts

    def measured(self) -> list[str]:
        """Documents to measure on, evenly spaced: of those not trained on, or where there are none, of those that were."""
        import numpy as np

        rows = np.flatnonzero(~self.kept[0] if self.held_out else self.kept[0])
        return list(self.tables[0][0].select(rows[:: max(1, len(rows) // MEASURED)])["text"])


def _documents(table: Any) -> Iterator[list[str]]:
    for batch in table.select_columns(["text"]).with_format("arrow").iter(1000):
        yield from ([text] for text in batch["text"].to_pylist())


def _dialogues(table: Any) -> Iterator[list[str]]:
    for batch in table.select_columns(["messages"]).with_format("arrow").iter(1000):
        yield from ([m["content"] for m in messages] for messages in batch["messages"].to_pylist())


def shuffled(n: int, seed: int) -> Any:
    """The numbers below n in an order that follows from the seed alone, whatever numpy is installed."""
    import numpy as np

    with np.errstate(over="ignore"):
        x = (
            np.arange(n, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 40) + np.uint64(1)
        ) * np.uint64(SHUFFLE[0])
        x = (x ^ (x >> np.uint64(30))) * np.uint64(SHUFFLE[1])
        x = (x ^ (x >> np.uint64(27))) * np.uint64(SHUFFLE[2])
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


def chosen(sizes: Any, share: float, seed: int) -> Any:
    """Mask of the rows, taken in a shuffled order, whose sizes add up to at most a share of all. Rows larger than that are passed over."""
    import numpy as np

    most = share * sizes.sum()
    order = shuffled(len(sizes), seed)
    order = order[(sizes[order] > 0) & (sizes[order] <= most)]
    mask = np.zeros(len(sizes), bool)
    mask[order[np.cumsum(sizes[order]) <= most]] = True
    return mask


@dataclass(frozen=True)
class Words:
    """What pre-tokenization makes of a text, before anything is merged."""

    different: int  # estimated for the whole of it
    longest: str

    def memory(self, each: int) -> int:
        """Bytes that training will take, at so many a word. Measured: 0.9 to 1.6 KB for BPE and WordPiece, 1.9 to 2.5 for Unigram."""
        return 100_000_000 + each * self.different


def words(texts: Iterable[str], spec: dict[str, Any], size: int) -> Words:
    """Look through texts of ``size`` bytes. spec: the pre-tokenizer as in tokenizer.json; one not known here cuts at white space."""
    from llmstages.text.encode import blocks
    from llmstages.text.pretokenize import Unknown, cutting

    try:
        cut, _ = cutting(spec)
    except Unknown:
        cut = None
    seen: set[bytes] = set()
    read, longest = 0, b""
    for block in blocks(texts, BLOCK):
        found = (
            cut(block)[0].dictionary_encode().dictionary.to_pylist()
            if cut
            else list({word.encode() for text in block for word in text.split()})
        )
        longest = max(longest, *found, key=len) if found else longest
        if read < PROBE:
            seen.update(found)
            read += sum(len(text.encode()) for text in block)
    seen.discard(b"\0")  # what stands between texts
    return Words(int(len(seen) * max(1.0, size / max(read, 1)) ** GROWTH), longest.decode())
