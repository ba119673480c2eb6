"""The text a tokenizer is trained on: a seeded part of corpus and dialogues, read as a stream.

A vocabulary hardly changes after the first gigabyte, while the memory of counting grows with the
number of distinct words (tokenizers#316, #994, #1681), so no more than ``sample_bytes`` is read. If
there is less text than that, all of it is used, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError

MAX_MEASURED = 2000  # documents that a tokenizer is measured on
BLOCK_CHARACTERS = 2_000_000  # processed at once
COUNTED_BYTES = 20_000_000  # text in which distinct words are counted; the rest is extrapolated
# Heaps' law: distinct words grow with bytes to this power (62,000 in 10 MB, 258,000 in 100 MB).
HEAPS_EXPONENT = 0.62
SUSPICIOUS_WORD = 2000  # characters of a word that no prose has
BASE_MEMORY = 100_000_000  # bytes that training takes without any words
# Constants of splitmix64 (Steele et al. 2014).
SPLITMIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Sample:
    """Texts to train on, in the order of the tables; may be iterated over again and again.

    Attributes:
        bytes: size of the sample; ``total_bytes``: of all texts that may be trained on.
        held_out: whether some documents are not trained on.
    """

    def __init__(
        self,
        documents: Any,
        dialogues: Sequence[Any],
        *,
        sample_bytes: int,
        seed: int,
        test_fraction: float = 0.0,
    ) -> None:
        """Choose the rows of the sample.

        Args:
            documents: a table with ``text``.
            dialogues: tables with ``messages``.
            test_fraction: share of the documents that are never trained on.

        Raises:
            StageError: an empty corpus, or a sample without any text.
        """
        import numpy as np

        if not len(documents):
            raise StageError(
                "the corpus is empty, so there is nothing to train a tokenizer on; "
                "look at `llmstages show corpus`"
            )
        self.documents = documents
        self.tables = [(documents, _document_texts)]
        for table in dialogues:
            self.tables.append((table, _dialogue_texts))
        sizes = [_row_sizes(table, read) for table, read in self.tables]
        self.kept = [np.ones(len(size), bool) for size in sizes]
        test_rows = shuffled(len(documents), seed + 1)[: int(test_fraction * len(documents))]
        self.kept[0][test_rows] = False
        self.total_bytes = self._kept_bytes(sizes)
        if self.total_bytes > sample_bytes:
            share = sample_bytes / self.total_bytes
            self.kept = [
                choose_rows(size * kept, share, seed)
                for size, kept in zip(sizes, self.kept, strict=True)
            ]
        self.bytes = self._kept_bytes(sizes)
        if self.total_bytes and not self.bytes:
            raise StageError(
                f"sample_bytes={sample_bytes} is less than any document; "
                "some hundred megabytes are a good value"
            )
        self.held_out = not self.kept[0].all()

    def _kept_bytes(self, sizes: Sequence[Any]) -> int:
        return int(sum(size[kept].sum() for size, kept in zip(sizes, self.kept, strict=True)))

    def __iter__(self) -> Iterator[str]:
        for (table, read), kept in zip(self.tables, self.kept, strict=True):
            for texts, is_kept in zip(read(table), kept, strict=True):
                if is_kept:
                    yield from texts

    def measured_documents(self) -> list[str]:
        """Evenly spaced documents to measure on: held-out ones, or else those trained on."""
        import numpy as np

        kept = self.kept[0]
        rows = np.flatnonzero(~kept if self.held_out else kept)
        step = max(1, len(rows) // MAX_MEASURED)
        return list(self.documents.select(rows[::step])["text"])


def _row_sizes(table: Any, read: Any) -> Any:
    """Bytes of text in each row."""
    import numpy as np

    sizes = (sum(len(text.encode()) for text in texts) for texts in read(table))
    return np.fromiter(sizes, np.int64, len(table))


def _document_texts(table: Any) -> Iterator[list[str]]:
    """The text of each row, as a list of one."""
    for batch in table.select_columns(["text"]).with_format("arrow").iter(1000):
        for text in batch["text"].to_pylist():
            yield [text]


def _dialogue_texts(table: Any) -> Iterator[list[str]]:
    """The contents of the messages of each row."""
    for batch in table.select_columns(["messages"]).with_format("arrow").iter(1000):
        for messages in batch["messages"].to_pylist():
            yield [message["content"] for message in messages]


def shuffled(count: int, seed: int) -> Any:
    """The numbers below ``count`` in an order that follows from the seed alone.

    It does not depend on the version of numpy, unlike its generators.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        offset = np.uint64(seed) * np.uint64(1 << 40) + np.uint64(1)
        x = (np.arange(count, dtype=np.uint64) + offset) * np.uint64(SPLITMIX[0])
        x = (x ^ (x >> np.uint64(30))) * np.uint64(SPLITMIX[1])
        x = (x ^ (x >> np.uint64(27))) * np.uint64(SPLITMIX[2])
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


def choose_rows(sizes: Any, share: float, seed: int) -> Any:
    """A mask of rows whose sizes add up to at most a share of all sizes.

    Rows are taken in a shuffled order. A row that is larger than the share is passed over.
    """
    import numpy as np

    room = share * sizes.sum()
    order = shuffled(len(sizes), seed)
    order = order[(sizes[order] > 0) & (sizes[order] <= room)]
    mask = np.zeros(len(sizes), bool)
    mask[order[np.cumsum(sizes[order]) <= room]] = True
    return mask


@dataclass(frozen=True)
class WordSurvey:
    """The words of a text before anything is merged.

    Attributes:
        distinct: number of distinct words, estimated for the whole text.
        longest: the longest word.
    """

    distinct: int
    longest: str

    def training_memory(self, bytes_per_word: int) -> int:
        """Bytes that training will take.

        Measured for each distinct word: 0.9 to 1.6 KB for BPE and WordPiece, 1.9 to 2.5 KB for
        Unigram.
        """
        return BASE_MEMORY + bytes_per_word * self.distinct


def survey_words(texts: Iterable[str], spec: dict[str, Any], size: int) -> WordSurvey:
    """Go through texts and look at their words.

    Args:
        spec: the pre-tokenizer as in tokenizer.json. One that cannot be reproduced quickly
            (text/pretokenize.py) is replaced by cutting at white space.
        size: bytes of all texts.
    """
    from llmstages.text.encode import blocks
    from llmstages.text.pretokenize import UnsupportedTokenizer, word_splitter

    try:
        split, _ = word_splitter(spec)
    except UnsupportedTokenizer:
        split = None
    distinct: set[bytes] = set()
    counted_bytes = 0
    longest = b""
    for block in blocks(texts, BLOCK_CHARACTERS):
        if split:
            words = split(block)[0].dictionary_encode().dictionary.to_pylist()
        else:
            words = list({word.encode() for text in block for word in text.split()})
        longest = max([longest, *words], key=len)
        if counted_bytes < COUNTED_BYTES:
            distinct.update(words)
            counted_bytes += sum(len(text.encode()) for text in block)
    # The splitter joins texts by this character.
    distinct.discard(b"\0")
    growth = max(1.0, size / max(counted_bytes, 1)) ** HEAPS_EXPONENT
    return WordSurvey(int(len(distinct) * growth), longest.decode())
